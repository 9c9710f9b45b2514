package socket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/users"
)

const (
	defaultProfile = 10 * time.Second
	maxProfile     = time.Minute
)

// showPprof returns a profile of the Go runtime for `go tool pprof`.
// Only one CPU profile can be made at a time.
func showPprof(r *request) answer {
	if err := r.full("show pprof"); err != nil {
		return answer{err: err}
	}
	usage := errors.New("usage: show pprof heap | allocs | goroutine [text] | block | mutex | threadcreate | profile [SECONDS]")
	if len(r.words) == 0 || len(r.words) > 2 {
		return answer{err: usage}
	}
	if r.words[0] == "profile" {
		return cpuProfile(r.ctx, r.words[1:])
	}
	p := pprof.Lookup(r.words[0])
	text := len(r.words) == 2 && r.words[1] == "text"
	if p == nil || len(r.words) == 2 && !text {
		return answer{err: usage}
	}
	var b bytes.Buffer
	if text {
		if err := p.WriteTo(&b, 1); err != nil {
			return answer{err: fmt.Errorf("show pprof: %w", err)}
		}
		return answer{text: b.String()}
	}
	if err := p.WriteTo(&b, 0); err != nil {
		return answer{err: fmt.Errorf("show pprof: %w", err)}
	}
	return answer{raw: b.Bytes()}
}

func cpuProfile(ctx context.Context, words []string) answer {
	length := defaultProfile
	if len(words) == 1 {
		n, err := strconv.Atoi(words[0])
		if length = time.Duration(n) * time.Second; err != nil || n < 1 || length > maxProfile {
			return answer{err: fmt.Errorf("show pprof profile takes 1 to %d seconds", int(maxProfile.Seconds()))}
		}
	}
	var b bytes.Buffer
	if err := pprof.StartCPUProfile(&b); err != nil {
		return answer{err: fmt.Errorf("show pprof: %w", err)}
	}
	over := time.NewTimer(length)
	defer over.Stop()
	select {
	case <-over.C:
	case <-ctx.Done():
	}
	pprof.StopCPUProfile()
	return answer{raw: b.Bytes()}
}

// runtimeInfo is the Data of show runtime.
type runtimeInfo struct {
	Go         string `json:"go"`
	Processors int    `json:"gomaxprocs"`
	Goroutines int    `json:"goroutines"`
	Heap       uint64 `json:"heap_bytes"`      // objects, those included that are garbage by now
	Mapped     uint64 `json:"mapped_bytes"`    // all memory that the runtime has from the system
	Released   uint64 `json:"released_bytes"`  // of that, given back
	Collected  uint64 `json:"gc_cycles"`       //
	Allocated  uint64 `json:"allocated_bytes"` // ever
	Limit      int64  `json:"memory_limit"`
}

// runtimeMetrics reads metrics of the runtime, without stopping it.
func runtimeMetrics(names ...string) []uint64 {
	samples := make([]metrics.Sample, len(names))
	for i, name := range names {
		samples[i].Name = name
	}
	metrics.Read(samples)
	values := make([]uint64, len(names))
	for i, s := range samples {
		if s.Value.Kind() == metrics.KindUint64 {
			values[i] = s.Value.Uint64()
		}
	}
	return values
}

const (
	heapObjects = "/memory/classes/heap/objects:bytes"
	mapped      = "/memory/classes/total:bytes"
	released    = "/memory/classes/heap/released:bytes"
)

func showRuntime(r *request) answer {
	if err := r.full("show runtime"); err != nil {
		return answer{err: err}
	}
	v := runtimeMetrics(heapObjects, mapped, released, "/gc/cycles/total:gc-cycles", "/gc/heap/allocs:bytes")
	i := runtimeInfo{
		Go: runtime.Version(), Processors: runtime.GOMAXPROCS(0), Goroutines: runtime.NumGoroutine(),
		Heap: v[0], Mapped: v[1], Released: v[2], Collected: v[3], Allocated: v[4], Limit: debug.SetMemoryLimit(-1),
	}
	var b strings.Builder
	for _, l := range []struct {
		name  string
		value any
	}{
		{"go", i.Go}, {"gomaxprocs", i.Processors}, {"goroutines", i.Goroutines}, {"heap_bytes", i.Heap},
		{"mapped_bytes", i.Mapped}, {"released_bytes", i.Released}, {"gc_cycles", i.Collected},
		{"allocated_bytes", i.Allocated}, {"memory_limit", i.Limit},
	} {
		fmt.Fprintf(&b, "%-15s %v\n", l.name, l.value)
	}
	return answer{text: b.String(), data: i}
}

// full refuses a command without the role full, and logs it, as package admin does
// for verbs.
func (r *request) full(command string) error {
	if r.caller.Role < users.Full {
		r.log.Warn("command refused", "verb", command, "by", r.caller.Name, "from", r.caller.From, "role", r.caller.Role.String())
		r.opt.Admin.Audit(r.ctx, r.caller, "command refused", "verb", command, "role", r.caller.Role.String())
		return fmt.Errorf("%w: %s needs the role %s; this user has %s", admin.ErrNotAllowed, command, users.Full, r.caller.Role)
	}
	verb := strings.Join(append([]string{command}, r.words...), " ")
	r.log.Info("command", "verb", verb, "by", r.caller.Name, "from", r.caller.From)
	r.opt.Admin.Audit(r.ctx, r.caller, "secrets read", "verb", verb) // profiles are made of memory
	return nil
}
