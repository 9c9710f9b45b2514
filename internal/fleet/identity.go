package fleet

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// newID returns an identifier that nothing else has.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// memory is what a node knows of itself and of its fleet when it starts again. It stands in
// the folder for state, one file for each fleet and name of a node.
type memory struct {
	ID string `json:"id"` // of the node, for ever
	// Instances are the processes that may have written the node's key last, the oldest first:
	// the one that has, and those that have tried since.
	Instances []string `json:"instances,omitempty"`
	// Generation and Change are those of the configuration that the node had last: 0 and ""
	// if it had none of the fleet.
	Generation uint64 `json:"generation,omitempty"`
	Change     string `json:"change,omitempty"`
	// Commands are those of groups that are gone.
	Commands []ownCommand `json:"commands,omitempty"`
	// Nodes is how many the fleet had, for even shares of limits before the node joins. It is
	// known only with shared limits.
	Nodes int `json:"nodes,omitempty"`

	// Instance is what txlb wrote before it knew Instances. It is read alone.
	Instance string `json:"instance,omitempty"`
}

// maxInstances bounds how many processes a memory has.
const maxInstances = 32

// begins notes a process that is going to write the node's key. It returns false if that was
// known.
func (m *memory) begins(instance string) bool {
	if slices.Contains(m.Instances, instance) {
		return false
	}
	m.Instances = append(slices.Clone(m.Instances), instance)
	if len(m.Instances) > maxInstances { // the oldest is the likeliest that has the key
		m.Instances = slices.Delete(m.Instances, 1, 2)
	}
	return true
}

// recall reads the memory at a path, or at the one that it had in earlier versions. Without a
// file it is a new one.
func recall(path, former string) (m memory, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		path = former
		data, err = os.ReadFile(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return memory{ID: newID()}, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err == nil && m.ID == "" {
		err = errors.New("it has no id")
	}
	if err != nil {
		return memory{}, fmt.Errorf("what this node knows of its fleet cannot be read: %w; delete %s if it is damaged", err, path)
	}
	if m.Instance != "" {
		m.begins(m.Instance)
		m.Instance = ""
	}
	return m, nil
}

// errNotOurs is that the memory belongs to another process by now.
var errNotOurs = errors.New("another process is the node")

// keep writes the memory. The file is the old or the new one at every moment, also if the
// machine loses its power. If over says so before the end, it leaves the file as it is: the error
// is errNotOurs. Another process may write meanwhile.
func (m memory) keep(path string, over func() bool) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	folder := filepath.Dir(path)
	fresh := filepath.Join(folder, "."+filepath.Base(path)+".new")
	_ = os.Remove(fresh) // a process that has handed over may still write there
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if over() {
		return errNotOurs
	}
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	if dir, err := os.Open(folder); err == nil { // not every system can
		_ = dir.Sync()
		_ = dir.Close()
	}
	return nil
}
