package splice

import (
	"errors"

	"golang.org/x/sys/unix"
)

// quotaPipes is how many pipes Quota opens at most.
const quotaPipes = 512

// Quota returns how many bytes pipes of a size may hold together in this process: most, or
// less if the kernel bounds what its user has (fs.pipe-user-pages-soft). Other processes of
// the user count, too. It opens the pipes for a moment; if there are no descriptors for them,
// it returns most.
func Quota(size int, most int64) int64 {
	var open []*Pipe
	defer func() {
		for _, p := range open {
			_ = p.Close()
		}
	}()
	total := int64(0)
	for total < most && len(open) < quotaPipes {
		p, err := NewPipe(size)
		if errors.Is(err, unix.ENFILE) { // pipe-user-pages-hard
			return total
		}
		if err != nil {
			return most
		}
		open = append(open, p)
		if p.size < open[0].size || p.size < min(smallest, size) {
			return total
		}
		total += int64(p.size)
	}
	return most
}
