package director

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/txlb/txlb/config"
)

// runCommand runs the program of <group onHold>, for a minute at most, and tells the log and
// the events what came of it.
func (d *Director) runCommand(ctx context.Context, service, group, command string) {
	argv, err := config.Command(command)
	if err != nil { // the configuration was checked
		d.log.Error("cannot run onHold", "service", service, "group", group, "err", err)
		return
	}
	within, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	var output tail
	began := time.Now()
	cmd := exec.CommandContext(within, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "TXLB_SERVICE="+service, "TXLB_GROUP="+group)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.WaitDelay = outputDelay
	apart(cmd)
	d.log.Info("clients are held, running onHold", "service", service, "group", group, "program", argv[0])
	err = cmd.Run()
	took := time.Since(began).Round(time.Millisecond)
	switch {
	case errors.Is(err, exec.ErrWaitDelay): // it succeeded, and what it has started runs on
		err = nil
	case err != nil && ctx.Err() != nil:
		err = errors.New("it was killed because this process of txlb ends")
	case err != nil && within.Err() != nil:
		err = fmt.Errorf("it was killed after %v", commandTimeout)
	}
	text := fmt.Sprintf("group %s of service %s: %s ended after %v", group, service, argv[0], took)
	if err != nil {
		d.log.Error("onHold failed", "service", service, "group", group, "program", argv[0], "after", took, "err", err, "output", output.String())
		text = fmt.Sprintf("group %s of service %s: %s failed after %v: %v", group, service, argv[0], took, err)
	} else {
		d.log.Info("onHold has ended", "service", service, "group", group, "program", argv[0], "after", took, "output", output.String())
	}
	d.events.note(Event{Kind: OrderEvent, Generation: d.State().Generation, Verb: "onHold", Text: text})
}

// maxOutput is how much of the output of a program the log gets.
const maxOutput = 512

// tail keeps the last bytes that were written.
type tail struct{ last []byte }

func (t *tail) Write(b []byte) (int, error) {
	t.last = append(t.last, b[max(0, len(b)-maxOutput):]...)
	t.last = t.last[max(0, len(t.last)-maxOutput):]
	return len(b), nil
}

func (t *tail) String() string {
	return string(bytes.ToValidUTF8(bytes.TrimSpace(t.last), []byte("?")))
}
