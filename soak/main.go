//go:build linux

// Command soak runs one txlb under mixed load of real clients, while it kills,
// starts, drains, weighs, removes and adds their hosts, and switches groups.
//
//	go run ./soak                        two minutes with every kind of client
//	go run ./soak -for 10m -seed 7       longer, with the changes of another run
//	go run ./soak -only echo,curl        two kinds of clients alone
//	go run ./soak -patroni 20            20 switchovers of a Patroni instead, see patroni.go
//
// It ends with a table of what clients saw. Errors that a death of a server
// explains, because it had the session in its hands, are counted apart (see
// kill.explains); of all others, and of leaks, there must be none, or the exit
// status is 1. Every change goes through director.Do, as it would in the
// program; engine and director run in this process, so that counters and
// descriptors can be looked at.
//
// Clients are the entries of kinds (clients.go). Programs that are missing are
// installed from Debian if the user is root; kinds that cannot run are left
// out, and named. Servers run on the loopback address, real ones as an
// unprivileged user, in a temporary folder that is removed.
//
// Limits: Linux only, for it reads /proc. A seed gives the same changes in the
// same order for each service, and clients the same requests; how they meet is
// the machine's choice.
package main

import (
	"context"
	crand "crypto/rand"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/rig"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/sched"
)

// options says what one run does.
type options struct {
	length time.Duration
	seed   uint64
	kinds  []kind
	keep   bool

	patroni int // switchovers; 0: none, but all else
}

func main() {
	if status, played := playRole(os.Args[1:]); played {
		os.Exit(status)
	}
	// As cmd/txlb does: one processor more than there are loops.
	loops := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(loops + 1)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, loops, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run is the command: it returns the exit status, 0 only if all went well.
func run(ctx context.Context, loops int, args []string, stdout, progress io.Writer) int {
	opt, err := parseArgs(args, progress)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(progress, "soak:", err)
		return 2
	}
	if opt.patroni > 0 {
		if _, err := followLeader(ctx, opt.patroni, opt.keep, stdout, progress); err != nil {
			fmt.Fprintln(progress, "soak:", err)
			return 1
		}
		return 0
	}
	before := openFiles()
	goroutines := runtime.NumGoroutine()
	rep, err := soak(ctx, loops, opt, progress)
	if err != nil {
		fmt.Fprintln(progress, "soak:", err)
		return 1
	}
	// All that was started has ended, so everything must be as it was.
	rep.leaks = rep.leaks.plus(settled(func() leaks {
		now := openFiles()
		// Less than before is no leak: something that was ending has ended.
		return leaks{
			fds: max(0, now.all-before.all), pipes: max(0, now.pipes-before.pipes),
			goroutines: max(0, runtime.NumGoroutine()-goroutines),
		}
	}))
	if err := rep.write(stdout); err != nil {
		fmt.Fprintln(progress, "soak: write the report:", err)
		return 1
	}
	if rep.bad() {
		return 1
	}
	return 0
}

func parseArgs(args []string, usage io.Writer) (options, error) {
	opt := options{kinds: kinds()}
	var all []string
	for _, k := range opt.kinds {
		all = append(all, k.name)
	}
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.SetOutput(usage)
	flags.DurationVar(&opt.length, "for", 2*time.Minute, "how long the clients work")
	flags.Uint64Var(&opt.seed, "seed", 0, "`NUMBER` that makes the changes of another run again (default: a random one)")
	only := flags.String("only", "", "`NAMES` of clients, separated by commas: "+strings.Join(all, ", "))
	flags.IntVar(&opt.patroni, "patroni", 0, "`NUMBER` of switchovers of a Patroni with two PostgreSQL servers, every second one with the clients held; nothing else is done then")
	flags.BoolVar(&opt.keep, "keep", false, "keep the folder with the logs of txlb and of the servers")
	if err := flags.Parse(args); err != nil {
		return opt, err
	}
	if flags.NArg() > 0 {
		return opt, fmt.Errorf("%q is one word too many", flags.Arg(0))
	}
	if opt.length < time.Second {
		return opt, fmt.Errorf("-for %v is too short: want 1s or more", opt.length)
	}
	if opt.seed == 0 {
		opt.seed = rand.Uint64() % 1_000_000 // short enough to be typed
	}
	if *only != "" {
		wanted := strings.Split(*only, ",")
		for _, w := range wanted {
			if !slices.Contains(all, w) {
				return opt, fmt.Errorf("-only: there is no %q: want some of %s", w, strings.Join(all, ", "))
			}
		}
		opt.kinds = slices.DeleteFunc(opt.kinds, func(k kind) bool { return !slices.Contains(wanted, k.name) })
	}
	return opt, nil
}

// service is a kind of client with its servers and the address of txlb that
// stands for them.
type service struct {
	kind
	place
	addr    string
	servers []*servers.Server
}

// soak does it all but for the last look at what is left. The error says why
// there is nothing to report.
func soak(ctx context.Context, loops int, opt options, progress io.Writer) (*report, error) {
	dir, err := os.MkdirTemp("", "txlb-soak-")
	if err != nil {
		return nil, err
	}
	if opt.keep {
		fmt.Fprintln(progress, "logs are in", dir)
	} else {
		defer func() { _ = os.RemoveAll(dir) }()
	}
	// The servers' user has to find its own folder in it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	rep := &report{seed: opt.seed, length: opt.length}
	fmt.Fprintf(progress, "soak for %v, seed %d: starting the servers\n", opt.length, opt.seed)
	services := available(dir, opt.kinds, rep, progress)
	if len(services) == 0 {
		return nil, errors.New("no kind of client can run")
	}
	defer func() {
		var stopping sync.WaitGroup
		for _, s := range services {
			for _, srv := range s.servers {
				stopping.Go(srv.Stop)
			}
		}
		stopping.Wait()
	}()
	if err := startServers(ctx, services); err != nil {
		return nil, err
	}
	bal, err := serve(loops, filepath.Join(dir, "txlb.log"), services)
	if err != nil {
		return nil, err
	}
	defer bal.close()

	rec := newRecord()
	changers := work(ctx, opt, services, bal, rec, progress)
	rep.early = ctx.Err() != nil
	for _, s := range services {
		for _, srv := range s.servers {
			if !srv.Running() {
				rec.broke(s.name, fmt.Errorf("host %s has ended by itself: %s", srv.Name, srv.LastWords()))
			}
		}
	}

	// The clients have gone, so nothing may be left of them.
	rep.leaks = settled(func() leaks { return bal.left(changers) })
	snap := bal.Engine.Snapshot()
	for i, w := range rep.rows {
		if w.leftOut == "" {
			stats := snap.Services[w.name]
			w.sessions, w.bytes = stats.Sessions, stats.In+stats.Out
			w.moved = stats.Redispatches
			w.errors, w.saved = rec.errors[w.name], rec.saved[w.name]
			rep.rows[i] = w
		}
	}
	rep.length = time.Since(rec.begun)
	rep.kills, rep.changes, rep.told, rep.broken = rec.kills, rec.changes, rec.told, rec.broken
	return rep, nil
}

// available returns the services whose programs are there, and gives each kind
// its row in the report.
func available(dir string, kinds []kind, rep *report, progress io.Writer) []*service {
	secret := crand.Text()
	var services []*service
	for _, k := range kinds {
		w := row{name: k.name}
		if err := debian.Need(k.programs...); err != nil {
			w.leftOut = err.Error()
			fmt.Fprintf(progress, "%s is left out: %v\n", k.name, err)
		} else {
			services = append(services, &service{kind: k, place: place{filepath.Join(dir, k.name), secret}})
		}
		rep.rows = append(rep.rows, w)
	}
	return services
}

// startServers makes the servers of all services and starts them.
func startServers(ctx context.Context, services []*service) error {
	problems := make(chan error, len(services))
	for _, s := range services {
		go func() { problems <- s.start(ctx) }()
	}
	var all error
	for range services {
		all = errors.Join(all, <-problems)
	}
	if ctx.Err() != nil {
		return errors.New("interrupted before it began")
	}
	return all
}

func (s *service) start(ctx context.Context) error {
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		return err
	}
	var err error
	if s.servers, err = s.kind.servers(ctx, s.place); err == nil {
		err = launch(ctx, s.place, s.servers, s.fill)
	}
	if err != nil {
		return fmt.Errorf("the servers for %s: %w", s.name, err)
	}
	return nil
}

// balancer is the txlb under test.
type balancer struct {
	*rig.Rig
	log   *os.File
	ready files // open before the first client
}

// serve makes one that listens for all services, and tells them where.
func serve(loops int, log string, services []*service) (*balancer, error) {
	cfg := config.New()
	cfg.Manager.HostCheck.Interval = 200 * time.Millisecond
	cfg.Manager.Heartbeat = config.Check{Interval: time.Second, Enable: true}
	for _, s := range services {
		c := config.NewService(s.name)
		c.Listen = []config.Listen{{Address: "127.0.0.1:0"}}
		for i, name := range []string{"one", "two"} {
			g := config.NewGroup(name)
			g.Enabled = i == 0
			g.Scheduler = s.policies[i]
			for _, srv := range s.servers {
				g.Hosts = append(g.Hosts, newHost(srv))
			}
			c.Groups = append(c.Groups, g)
		}
		cfg.Services = append(cfg.Services, c)
	}
	if err := cfg.Check("soak").Err(); err != nil {
		return nil, err
	}
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	run, err := rig.Run(cfg, loops, director.Options{Log: slog.New(slog.NewTextHandler(file, nil))})
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	for _, s := range services {
		s.addr = run.Addr(s.name)
	}
	return &balancer{run, file, openFiles()}, nil
}

// close drains and closes, as the program does.
func (b *balancer) close() {
	_ = b.StopDirector()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = b.Engine.Drain(ctx) // what did not end by itself has been counted
	_ = b.Close()
	_ = b.log.Close()
}

// left tells what is left of the clients while txlb still runs. Pipes that wait
// for the next stream are no leak; whether any is lost shows when all is
// closed.
func (b *balancer) left(changers []*changer) leaks {
	var l leaks
	snap := b.Engine.Snapshot()
	for _, s := range snap.Services {
		l.sessions += int(s.Active)
	}
	spare := 0
	for _, loop := range snap.Loops {
		spare += int(loop.Pipes)
	}
	for _, c := range changers {
		for h := range c.seen {
			l.counters += int(max(h.Stats().Active, -h.Stats().Active))
		}
	}
	l.fds = max(0, openFiles().all-b.ready.all-2*spare)
	return l
}

// work lets clients and changes loose until the time is over or ctx ends. When
// it returns, all of them have ended.
func work(ctx context.Context, opt options, services []*service, bal *balancer, rec *record, progress io.Writer) []*changer {
	enough, over := context.WithTimeout(ctx, opt.length)
	defer over()
	hard, abort := context.WithCancel(ctx)
	defer abort()
	block := make([]byte, 1<<20-3) // no multiple of anything
	rng := rand.New(rand.NewPCG(opt.seed, 0))
	for i := range block {
		block[i] = byte(rng.Uint32())
	}
	var clients, changes sync.WaitGroup
	var changers []*changer
	for _, s := range services {
		for i := range s.clients {
			w := &worker{place: s.place, service: s, number: i, rng: random(opt.seed, s.name, i+1), block: block}
			clients.Go(func() { w.work(hard, enough.Done(), rec) })
		}
		c := &changer{service: s, dir: bal.Director, rec: rec, rng: random(opt.seed, s.name, 0), seen: map[*sched.Host]bool{}}
		changers = append(changers, c)
		changes.Go(func() { c.work(enough) })
	}
	watching, unwatch := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() { show(watching, bal.Engine, rec, progress) })

	changes.Wait()
	// Clients finish what they have begun. A program may take its time.
	late := time.AfterFunc(2*sessionPatience, func() {
		rec.broke("clients", fmt.Errorf("some did not end within %v", 2*sessionPatience))
		abort()
	})
	clients.Wait()
	late.Stop()
	unwatch()
	watch.Wait()
	return changers
}

// random returns the random numbers of one client or changer.
func random(seed uint64, name string, number int) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprint(h, name, number)
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// show prints a line now and then until ctx ends.
func show(ctx context.Context, eng engine.Engine, rec *record, progress io.Writer) {
	const every = 5 * time.Second
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var sessions, bytes uint64
		for _, s := range eng.Snapshot().Services {
			sessions += s.Sessions
			bytes += s.In + s.Out
		}
		seen, saved, last := rec.failures()
		fmt.Fprintf(progress, "%4.0fs  %7d sessions  %8.1f MB  lost with a server %d  other errors %d  last change: %s\n",
			time.Since(rec.begun).Seconds(), sessions, float64(bytes)/1e6, seen-saved, saved, last)
	}
}

// settled looks until nothing is left, or for as long as patience, and returns
// what still is.
func settled(look func() leaks) leaks {
	var l leaks
	_ = until(context.Background(), func() error {
		if l = look(); l.any() {
			return errors.New("something is left")
		}
		return nil
	})
	return l
}

// files counts open descriptors.
type files struct{ all, pipes int }

// openFiles counts those of this process, without those that reserve ports. The
// folder that is read has one itself, each time.
func openFiles() files {
	const folder = "/proc/self/fd"
	// The runtime opens its poller with the first socket: it is no leak.
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		_ = ln.Close()
	}
	var f files
	entries, err := os.ReadDir(folder)
	if err != nil {
		return f
	}
	for _, e := range entries {
		f.all++
		if target, err := os.Readlink(filepath.Join(folder, e.Name())); err == nil && strings.HasPrefix(target, "pipe:") {
			f.pipes++
		}
	}
	f.all -= servers.Descriptors()
	return f
}
