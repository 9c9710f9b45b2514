//go:build linux

package loops

import "github.com/panjf2000/gnet/v2/pkg/queue"

// An inbox takes what other goroutines want done by a loop.
type inbox struct {
	tasks queue.AsyncTaskQueue
	poll  *poller
	rung  bool // the bell rang in this batch
}

func newInbox(p *poller) inbox { return inbox{tasks: queue.NewLockFreeQueue(), poll: p} }

// submit makes the loop run f at the end of a batch. Any goroutine may call it.
func (b *inbox) submit(f func()) {
	t := queue.GetTask()
	t.Exec = func(any) error { f(); return nil }
	b.tasks.Enqueue(t)
	b.poll.ring()
}

// run runs the tasks that are there, if the bell rang. A task that comes meanwhile, such
// as the next step of a walk, rings again and waits for the next turn. hush comes first,
// so that no task is missed by Length and left without a ring.
func (b *inbox) run() {
	if !b.rung {
		return
	}
	b.rung = false
	b.poll.hush()
	for range b.tasks.Length() {
		t := b.tasks.Dequeue()
		_ = t.Exec(t.Param)
		queue.PutTask(t)
	}
}
