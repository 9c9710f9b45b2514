package fleet

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// place is where a process is a node: a folder for state, on a machine that was booted at some
// time. Who copies the folder, or the machine, has another place, however equal the files are.
// A process that is the node has locked its place, so that there are no two.
//
// The key of the node has the place of the process that wrote it. So a process that starts with
// the id of the node knows whether it comes after that one, which then does not live any more,
// or beside it.
type place struct {
	folder string // device and inode of the file that is locked
	boot   time.Time
}

// bootSlack is how much the time of a boot may differ that is computed from two clocks.
const bootSlack = 2 * time.Second

// String is the place as the key of a node has it, "" if it is not known.
func (p place) String() string {
	if p == (place{}) {
		return ""
	}
	return p.folder + "@" + strconv.FormatInt(p.boot.UnixMilli(), 10)
}

// readPlace reads what String has written. What it cannot read is nowhere.
func readPlace(s string) place {
	folder, boot, _ := strings.Cut(s, "@")
	ms, err := strconv.ParseInt(boot, 10, 64)
	if folder == "" || err != nil {
		return place{}
	}
	return place{folder, time.UnixMilli(ms)}
}

// is tells whether two places are the same, which both are known.
func (p place) is(q place) bool {
	return p.folder != "" && p.folder == q.folder && p.boot.Sub(q.boot).Abs() <= bootSlack
}

// lockPath is the file that the process has locked which is the node.
func (n *Node) lockPath() string {
	return filepath.Join(filepath.Dir(n.path), strings.TrimSuffix(filepath.Base(n.path), ".json")+".lock")
}

// occupy locks the place of the node, if this process has not. A folder that cannot be locked is
// no place: such a node is not told from its copy. It belongs to the goroutine of Run. The disk may
// hang, so n.mu is not held meanwhile.
func (n *Node) occupy() error {
	n.mu.Lock()
	done := n.locked != nil || n.handedOver
	n.mu.Unlock()
	if done {
		return nil
	}
	locked, where, err := n.lock(n.lockPath())
	if other := (*occupiedError)(nil); errors.As(err, &other) {
		return fmt.Errorf("another process of this machine%v is the node %q: it has locked %s. Give one of the two another name by <fleet node>, or another folder for state", other, n.name, n.lockPath())
	}
	if err != nil && n.unplaced != err.Error() {
		n.unplaced = err.Error()
		n.log.Warn("the folder for state cannot be locked, so this node is not told from its copies", "fleet", n.opt.Config.Name, "node", n.name, "err", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.locked, n.where = locked, where
	if n.handedOver { // meanwhile
		n.vacate()
	}
	return nil
}

// vacate unlocks the place. n.mu is held.
func (n *Node) vacate() {
	if n.locked != nil {
		_ = n.locked.Close()
		n.locked = nil
	}
}

// occupiedError is that another process has locked a place.
type occupiedError struct{ pid int } // 0: not known

func (e *occupiedError) Error() string {
	if e.pid == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d)", e.pid)
}
