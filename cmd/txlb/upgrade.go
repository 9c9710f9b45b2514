package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/txlb/txlb/internal/words"
)

// upgradeWithin is how long the new process may take until it could serve.
const upgradeWithin = 30 * time.Second

// errUpgrading is why changes are refused for the moment.
var errUpgrading = errors.New("an upgrade is under way; try again when it is done")

// upgraded is what became of an upgrade.
type upgraded struct {
	pid     int
	version string
	// Sessions: those that were lost have got a reset.
	moved, stay, lost int
}

func (u upgraded) String() string {
	text := fmt.Sprintf("process %d (version %s) has taken over", u.pid, u.version)
	if u.moved > 0 {
		text += " with " + words.Count(u.moved, "session")
	}
	if u.stay > 0 {
		text += fmt.Sprintf("; %s to finish in process %d", words.Count(u.stay, "session"), os.Getpid())
	}
	if u.lost > 0 {
		text += fmt.Sprintf("; %s could not move and got a reset", words.Count(u.lost, "session"))
	}
	return text
}

// installedPath returns where the program is, or will be after an installation: the path that it
// was called by, so that a link may lead to another version by then; else its own.
func installedPath() (string, error) {
	own, err := os.Executable()
	if err != nil {
		return "", err
	}
	called, err := exec.LookPath(cmp.Or(os.Args[0], own))
	if err == nil {
		called, err = filepath.Abs(called)
	}
	if err != nil || !sameFile(called, own) {
		return own, nil
	}
	return called, nil
}

func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}
