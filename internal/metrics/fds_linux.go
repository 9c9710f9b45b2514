package metrics

import (
	"errors"
	"io"
	"os"
)

// openFDs returns how many descriptors the process has open. Since Linux 6.2
// the kernel tells the number; before, they have to be listed, which takes some
// 50 ms for 200,000.
func openFDs() (uint64, bool) {
	if info, err := os.Stat(fdDir); err == nil && info.Size() > 0 {
		return uint64(info.Size()), true
	}
	return listFDs()
}

const fdDir = "/proc/self/fd"

// listFDs counts the descriptors one by one.
func listFDs() (uint64, bool) {
	f, err := os.Open(fdDir)
	if err != nil {
		return 0, false
	}
	defer func() { _ = f.Close() }()
	var n uint64
	for {
		names, err := f.Readdirnames(1024)
		n += uint64(len(names))
		switch {
		case errors.Is(err, io.EOF):
			return n - 1, true // f is no part of what was asked for
		case err != nil:
			return 0, false
		}
	}
}
