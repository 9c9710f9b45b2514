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
)

// newID returns an identifier that nothing else has.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// memory is what a node knows of itself and of its fleet when it starts again. It stands in
// the folder for state, one file for each fleet.
type memory struct {
	ID       string `json:"id"`       // of the node, for ever
	Instance string `json:"instance"` // of the process that has been the node last
	// Generation and Change are those of the configuration that the node had last: 0 and ""
	// if it had none of the fleet.
	Generation uint64 `json:"generation,omitempty"`
	Change     string `json:"change,omitempty"`
}

// recall reads the memory at a path. Without a file it is a new one.
func recall(path string) (memory, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return memory{ID: newID()}, nil
	}
	var m memory
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err == nil && m.ID == "" {
		err = errors.New("it has no id")
	}
	if err != nil {
		return m, fmt.Errorf("what this node knows of its fleet cannot be read: %w; delete %s if it is damaged", err, path)
	}
	return m, nil
}

// keep writes the memory. The file is the old or the new one at every moment.
func (m memory) keep(path string) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	fresh := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(fresh, append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}
