//go:build unix

package document

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// keepOwner gives a file the owner and the group of another. If only root may give
// files away, the owner stays, and the note says so. A group that cannot be kept is
// an error: the wrong users could read the file.
func keepOwner(f *os.File, like fs.FileInfo) (note string, err error) {
	mine, err := f.Stat()
	if err != nil {
		return "", err
	}
	is, ok := mine.Sys().(*syscall.Stat_t)
	want, also := like.Sys().(*syscall.Stat_t)
	if !ok || !also || is.Uid == want.Uid && is.Gid == want.Gid {
		return "", nil
	}
	err = f.Chown(int(want.Uid), int(want.Gid))
	if !errors.Is(err, fs.ErrPermission) {
		return "", err
	}
	if is.Gid != want.Gid {
		if err := f.Chown(-1, int(want.Gid)); err != nil {
			return "", err
		}
	}
	if is.Uid == want.Uid {
		return "", nil
	}
	return fmt.Sprintf("belongs to user %d now, and not to %d any more: only root gives files away", is.Uid, want.Uid), nil
}

// syncFolder syncs the names in a folder to disk.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // a file system that knows no such thing
	}
	return errors.Join(err, d.Close())
}
