package splice

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// pair returns two non-blocking stream sockets that are connected.
func pair(t testing.TB) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	})
	return fds[0], fds[1]
}

func pipe(t testing.TB, size int) *Pipe {
	t.Helper()
	p, err := NewPipe(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func write(t testing.TB, fd int, p []byte) {
	t.Helper()
	if n, err := unix.Write(fd, p); n != len(p) || err != nil {
		t.Fatalf("wrote %d of %d bytes: %v", n, len(p), err)
	}
}

// fillSocket writes until the socket takes no more and returns how much it took.
func fillSocket(t testing.TB, fd int) (total int) {
	t.Helper()
	block := make([]byte, 64<<10)
	for {
		n, err := unix.Write(fd, block)
		if err == unix.EAGAIN {
			return total
		}
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
}

func TestFillAndDrain(t *testing.T) {
	from, src := pair(t)
	dst, to := pair(t)
	p := pipe(t, 1<<20)
	if n, st, err := p.Fill(src, 1<<20); n != 0 || st != Again || err != nil {
		t.Errorf("an empty socket: %d, %v, %v", n, st, err)
	}
	want := bytes.Repeat([]byte("0123456789"), 3000)
	write(t, from, want)
	if n, st, err := p.Fill(src, 10_000); n == 0 || n > 10_000 || st != OK || err != nil {
		t.Errorf("a limit of 10000: %d, %v, %v", n, st, err)
	}
	var got []byte
	buf := make([]byte, 64<<10)
	for len(got) < len(want) {
		if _, st, err := p.Fill(src, 1<<20); err != nil || st == EOF {
			t.Fatalf("fill: %v, %v", st, err)
		}
		held := p.Held()
		n, st, err := p.Drain(dst)
		if n != held || st != OK || err != nil || p.Held() != 0 {
			t.Fatalf("drain of %d: %d, %v, %v, %d are left", held, n, st, err, p.Held())
		}
		n, err = unix.Read(to, buf)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, buf[:n]...)
	}
	if !bytes.Equal(got, want) {
		t.Error("other bytes came")
	}
	if err := unix.Shutdown(from, unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	if n, st, err := p.Fill(src, 1<<20); n != 0 || st != EOF || err != nil {
		t.Errorf("at the end: %d, %v, %v", n, st, err)
	}
}

// A pipe that is full is told from a socket that is empty, whether its bytes
// or its slots ran out.
func TestPipeFullIsNotAnEmptySocket(t *testing.T) {
	for name, piece := range map[string]int{"bytes": 64 << 10, "slots": 1} {
		from, src := pair(t)
		dst, to := pair(t)
		p := pipe(t, 64<<10)
		sawFull := false
		for range 2000 {
			if _, err := unix.Write(from, make([]byte, piece)); err != nil && err != unix.EAGAIN {
				t.Fatal(err)
			}
			_, st, err := p.Fill(src, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if st == PipeFull {
				sawFull = true
				break
			}
			if st == Again {
				t.Fatalf("%s: Again with %d bytes in the pipe and more in the socket", name, p.Held())
			}
		}
		if !sawFull {
			t.Errorf("%s: the pipe never was full", name)
		}
		if _, _, err := p.Drain(dst); err != nil {
			t.Fatal(err)
		}
		_, _ = unix.Read(to, make([]byte, 1<<20))
		if n, st, err := p.Fill(src, 1<<20); n == 0 || st != OK || err != nil {
			t.Errorf("%s: after the drain: %d, %v, %v", name, n, st, err)
		}
	}
}

// A destination that takes no more says Again; what it did not take stays in
// the pipe and comes, in order, when there is room.
func TestDrainToAFullSocket(t *testing.T) {
	from, src := pair(t)
	dst, to := pair(t)
	p := pipe(t, 64<<10)
	queued := fillSocket(t, dst)
	write(t, from, []byte("the last bytes"))
	if n, _, err := p.Fill(src, 1<<20); n != 14 || err != nil {
		t.Fatalf("fill: %d, %v", n, err)
	}
	if n, st, err := p.Drain(dst); n != 0 || st != Again || err != nil || p.Held() != 14 {
		t.Errorf("drain to a full socket: %d, %v, %v, %d held", n, st, err, p.Held())
	}
	buf := make([]byte, 64<<10)
	for queued > 0 {
		n, err := unix.Read(to, buf)
		if err != nil {
			t.Fatal(err)
		}
		queued -= n
	}
	if n, st, err := p.Drain(dst); n != 14 || st != OK || err != nil {
		t.Errorf("drain when there is room: %d, %v, %v", n, st, err)
	}
	if n, _ := unix.Read(to, buf); string(buf[:n]) != "the last bytes" {
		t.Errorf("came %q", buf[:n])
	}
}

func TestDrainToAClosedSocket(t *testing.T) {
	from, src := pair(t)
	p := pipe(t, 64<<10)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fds[0]) }()
	_ = unix.Close(fds[1])
	write(t, from, []byte("lost"))
	if _, _, err := p.Fill(src, 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Drain(fds[0]); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("drain to a closed socket: %v", err)
	}
	if p.Held() != 4 {
		t.Errorf("%d bytes are held, want 4", p.Held())
	}
}

func TestPool(t *testing.T) {
	before := testkit.OpenFDs()
	const size = 64 << 10
	p := NewPool(size, NewBudget(6*size))
	var pipes []*Pipe
	for range 6 {
		pipe, err := p.Get()
		if err != nil {
			t.Fatal(err)
		}
		pipes = append(pipes, pipe)
	}
	if _, err := p.Get(); !errors.Is(err, ErrExhausted) {
		t.Errorf("the seventh pipe: %v", err)
	}
	if p.Lent() != 6 || p.Open() != 6 {
		t.Errorf("%d lent, %d open", p.Lent(), p.Open())
	}
	// While more than half of the budget is used, what is put back is closed.
	p.Put(pipes[0])
	p.Put(pipes[1])
	if p.Lent() != 4 || p.Open() != 4 {
		t.Errorf("with a scarce budget %d lent, %d open", p.Lent(), p.Open())
	}
	// After that an empty pipe is used again; one that holds bytes never is.
	from, src := pair(t)
	write(t, from, []byte("of another stream"))
	if _, _, err := pipes[2].Fill(src, 1<<20); err != nil {
		t.Fatal(err)
	}
	p.Put(pipes[2])
	p.Put(pipes[3])
	if p.Lent() != 2 || p.Open() != 3 {
		t.Errorf("%d lent, %d open", p.Lent(), p.Open())
	}
	again, err := p.Get()
	if err != nil || again != pipes[3] || again.Held() != 0 {
		t.Errorf("got a pipe with %d bytes, %v", again.Held(), err)
	}
	fresh, err := p.Get() // the closed one's share is free again
	if err != nil {
		t.Fatal(err)
	}
	for _, pipe := range []*Pipe{again, fresh, pipes[4], pipes[5]} {
		p.Put(pipe)
	}
	p.Close()
	if p.Open() != 0 || testkit.OpenFDs() != before+2 { // the pair of sockets
		t.Errorf("%d pipes and %d descriptors are left", p.Open(), testkit.OpenFDs()-before-2)
	}
}

// Other memory counts as a pipe, and leaves half of the budget to pipes.
func TestReserve(t *testing.T) {
	const size = 64 << 10
	budget := NewBudget(4 * size)
	p := NewPool(size, budget)
	for i, want := range []bool{true, true, true, false, false} {
		if got := p.Reserve(); got != want {
			t.Errorf("number %d: %v", i, got)
		}
	}
	p.Unreserve()
	p.Unreserve()
	if !p.Reserve() {
		t.Error("what was given back is not there")
	}
	p.Unreserve()
	p.Unreserve()
	if n := budget.used.Load(); n != 0 {
		t.Errorf("%d bytes are used in the end", n)
	}
}

// Any pool may use the whole budget, what others keep unused included but for a
// half; together they never use more, and in the end all of it is back.
func TestPoolsShareABudget(t *testing.T) {
	const size, limit, pools = 64 << 10, 8, 100
	budget := NewBudget(limit * size)
	all := make([]*Pool, pools)
	for i := range all {
		all[i] = NewPool(size, budget)
	}
	borrow := func(p *Pool, n int) (pipes []*Pipe) {
		for range n {
			pipe, err := p.Get()
			if err != nil {
				t.Errorf("%d of %d pipes: %v", len(pipes), n, err)
				break
			}
			pipes = append(pipes, pipe)
		}
		return pipes
	}
	giveBack := func(p *Pool, pipes []*Pipe) {
		for _, pipe := range pipes {
			p.Put(pipe)
		}
	}
	first := borrow(all[0], limit)
	if _, err := all[1].Get(); !errors.Is(err, ErrExhausted) {
		t.Errorf("a pipe beyond the budget: %v", err)
	}
	giveBack(all[0], first)
	for _, p := range all {
		giveBack(p, borrow(p, limit/2))
	}
	var wg sync.WaitGroup
	var lent atomic.Int64
	for _, p := range all {
		wg.Go(func() {
			for range 20 {
				if pipe, err := p.Get(); err == nil {
					if n := lent.Add(1); n > limit {
						t.Errorf("%d pipes are lent", n)
					}
					lent.Add(-1)
					p.Put(pipe)
				}
			}
		})
	}
	wg.Wait()
	open := 0
	for _, p := range all {
		open += p.Open()
	}
	if used := budget.used.Load(); used != int64(open)*size || open > limit/2 {
		t.Errorf("%d unused pipes are open, and %d bytes used", open, used)
	}
	for _, p := range all {
		p.Close()
	}
	if used := budget.used.Load(); used != 0 {
		t.Errorf("%d bytes are used in the end", used)
	}
}

// Where the kernel opens no more, the pool says so, stops asking for a while
// and works again later.
func TestPoolWithoutDescriptors(t *testing.T) {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	p := NewPool(64<<10, NewBudget(1<<20))
	defer p.Close()
	none := was
	none.Cur = 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	_, err := p.Get()
	if rerr := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); rerr != nil {
		t.Fatal(rerr)
	}
	if !errors.Is(err, ErrExhausted) || !errors.Is(err, syscall.EMFILE) {
		t.Errorf("without descriptors: %v", err)
	}
	for i := range patience + 1 {
		pipe, err := p.Get()
		if i < patience && err == nil {
			t.Fatalf("asked the kernel again after %d Gets", i)
		}
		if i == patience {
			if err != nil {
				t.Fatal(err)
			}
			p.Put(pipe)
		}
	}
}

// BenchmarkFillDrain moves blocks of a size ladder through a pipe.
func BenchmarkFillDrain(b *testing.B) {
	for _, size := range []int{4 << 10, 16 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			from, src := pair(b)
			dst, to := pair(b)
			p := pipe(b, 1<<20)
			block, sink := make([]byte, size), make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				write(b, from, block)
				for moved := 0; moved < size; {
					if _, _, err := p.Fill(src, size); err != nil {
						b.Fatal(err)
					}
					n, _, err := p.Drain(dst)
					if err != nil {
						b.Fatal(err)
					}
					moved += n
				}
				for got := 0; got < size; {
					n, err := unix.Read(to, sink)
					if err != nil {
						b.Fatal(err)
					}
					got += n
				}
			}
		})
	}
}
