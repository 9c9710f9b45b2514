package certs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxFile bounds a file: a bundle of all authorities of a system has 300 KiB.
	maxFile = 8 << 20
	// settledAfter is how much older than its reading a file must be to be settled. One
	// that was written a moment before may be written again and look the same: a file
	// system keeps times in steps, of two seconds at most.
	settledAfter = 3 * time.Second
)

// Kept is a value that was made from files, and is made again when they have changed.
// All methods may be called from any goroutine.
type Kept[T any] struct {
	paths []string
	parse func(texts [][]byte) (*T, error)

	made    atomic.Pointer[made[T]]
	trouble atomic.Pointer[Trouble]

	mu      sync.Mutex // one Look at a time
	seen    []stamp    // of the files when they were last read
	settled bool       // with another content they would look different
}

// made is a value, and the sum of the texts that it was made of.
type made[T any] struct {
	value *T
	sum   [sha256.Size]byte
}

// Trouble is why files cannot be used as they are now. What was read before stays in
// use.
type Trouble struct {
	Err   error
	Since time.Time
}

// stamp changes when a file does.
type stamp struct {
	info os.FileInfo // nil: there is none
	when time.Time
	size int64
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{info, info.ModTime(), info.Size()}
}

func (s stamp) same(t stamp) bool {
	if s.info == nil || t.info == nil {
		return s.info == nil && t.info == nil
	}
	return s.when.Equal(t.when) && s.size == t.size && os.SameFile(s.info, t.info)
}

// keep reads files for the first time.
func keep[T any](parse func(texts [][]byte) (*T, error), paths ...string) (*Kept[T], error) {
	k := &Kept[T]{paths: paths, parse: parse}
	texts, err := k.read(time.Now())
	if err != nil {
		return nil, err
	}
	value, err := parse(texts)
	if err != nil {
		return nil, err
	}
	k.made.Store(&made[T]{value, sumOf(texts)})
	return k, nil
}

// Now returns the value. It is never nil.
func (k *Kept[T]) Now() *T { return k.made.Load().value }

// sum is the sum of the files that Now was made of.
func (k *Kept[T]) sum() [sha256.Size]byte { return k.made.Load().sum }

// Trouble returns why the files cannot be used as they are now, nil if they can.
func (k *Kept[T]) Trouble() *Trouble { return k.trouble.Load() }

// Look reads the files if they have changed, and tells whether it has taken them up: there
// is another value now, or what was wrong with them is over. An error is returned once; the
// old value stays. While the files are wrong, each Look reads them.
func (k *Kept[T]) Look(now time.Time) (taken bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	was := k.trouble.Load()
	if was == nil && k.settled && !k.moved() {
		return false, nil
	}
	texts, err := k.read(now)
	sum := sumOf(texts)
	if err == nil && sum == k.sum() {
		k.trouble.Store(nil)
		return was != nil, nil
	}
	var value *T
	if err == nil {
		value, err = k.parse(texts)
	}
	if err == nil {
		k.made.Store(&made[T]{value, sum})
		k.trouble.Store(nil)
		return true, nil
	}
	if was == nil {
		k.trouble.Store(&Trouble{err, now})
		return false, err
	}
	if was.Err.Error() == err.Error() {
		return false, nil
	}
	k.trouble.Store(&Trouble{err, was.Since})
	return false, err
}

// moved tells whether the files look different.
func (k *Kept[T]) moved() bool {
	for i, path := range k.paths {
		if !k.seen[i].same(stampOf(path)) {
			return true
		}
	}
	return false
}

// read reads the files. What is written to them from now on is seen by the next Look.
func (k *Kept[T]) read(now time.Time) (texts [][]byte, err error) {
	seen := make([]stamp, len(k.paths))
	settled := true
	for i, path := range k.paths {
		seen[i] = stampOf(path)
		settled = settled && now.Sub(seen[i].when) > settledAfter
	}
	k.seen, k.settled = seen, settled
	for i, path := range k.paths {
		if at := slices.Index(k.paths[:i], path); at >= 0 { // certificate and key in one file
			texts = append(texts, texts[at])
			continue
		}
		text, err := readFile(path)
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, nil
}

// readFile reads a regular file: a FIFO could make us wait.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	var text []byte
	if err == nil {
		text, err = readMost(path)
	}
	if err != nil {
		if whole, ok := errors.AsType[*fs.PathError](err); ok {
			err = whole.Err
		}
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return text, nil
}

func readMost(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("it has more than %d bytes", maxFile)
	}
	return text, err
}

func sumOf(texts [][]byte) [sha256.Size]byte {
	return sha256.Sum256(bytes.Join(texts, []byte{0}))
}
