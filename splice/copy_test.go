package splice

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

func TestCopy(t *testing.T) {
	a, src := net.Pipe()
	dst, b := net.Pipe()
	want := bytes.Repeat([]byte("0123456789"), 50_000)
	go func() {
		_, _ = a.Write(want)
		_ = a.Close()
	}()
	moved := 0
	done := make(chan error, 1)
	go func() {
		done <- Copy(dst, src, func(n int) { moved += n })
		_ = dst.Close()
	}()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes came, or others: %v", len(got), len(want), err)
	}
	if err := <-done; err != nil || moved != len(want) {
		t.Errorf("moved %d: %v", moved, err)
	}
}

func TestCopyTellsWhichSideFailed(t *testing.T) {
	a, src := net.Pipe()
	dst, b := net.Pipe()
	defer func() { _ = a.Close() }()
	_ = src.SetReadDeadline(time.Unix(1, 0))
	if err := Copy(dst, src, func(int) {}); !errors.Is(err, ErrRead) || errors.Is(err, ErrWrite) {
		t.Errorf("a read that fails: %v", err)
	}
	_ = src.SetReadDeadline(time.Time{})
	_ = b.Close()
	go func() { _, _ = a.Write([]byte("x")) }()
	if err := Copy(dst, src, func(int) {}); !errors.Is(err, ErrWrite) || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a write that fails: %v", err)
	}
}
