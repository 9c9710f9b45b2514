// Package document has a configuration as the text of a file. [Open] reads it and
// [File.Save] makes it say what runs: what has not changed stays as people wrote
// it, with comments, order and layout.
package document

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/txlb/txlb/config"
)

// File is a configuration file as it was last read or written. It does not
// change; Save returns another one.
type File struct {
	Path   string
	Config *config.Config // what it says
	data   []byte
}

// ErrEdited is why a file is not overwritten that somebody else has changed.
var ErrEdited = errors.New("has been changed by hand since it was read; reload it first, or discard the run-time changes")

// Open reads and checks a file. There is no File if there are errors among the
// problems.
func Open(path string) (*File, config.Problems) {
	data, err := readBounded(path)
	if err != nil {
		return nil, config.Problems{{File: path, Text: err.Error()}}
	}
	c, problems := config.Parse(path, data)
	if c == nil {
		return nil, problems
	}
	return &File{Path: path, Config: c, data: data}, problems
}

// readBounded reads a file, or so much of it that Parse says that it is too
// large.
func readBounded(path string) ([]byte, error) {
	// Asked before it is opened: opening a named pipe would wait for a writer.
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		if pathErr, ok := errors.AsType[*os.PathError](err); ok {
			return nil, fmt.Errorf("cannot be read: %w", pathErr.Err)
		}
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, config.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	return data, nil
}

// Text returns the document as it was read or written, in UTF-8 whatever its
// encoding. It may contain password hashes.
func (d *File) Text() string {
	if utf8.Valid(d.data) {
		return string(d.data)
	}
	runes := make([]rune, len(d.data)) // ISO-8859-1, the only other encoding that is read
	for i, b := range d.data {
		runes[i] = rune(b)
	}
	return string(runes)
}

// Save makes the file say what c does and returns it as it is then; without a
// difference it writes nothing. The file is the old or the new one at every
// moment, whole, whatever ends the process or the machine: the new one is
// written beside it, brought to the disk, and takes its name. Mode and owner
// stay, and a symbolic link keeps pointing at it. See rewrite for what stays of
// the text.
//
// The old file is kept beside as FILE-YYYYmmddHHMMSS (with -1, -2 behind within
// one second); the oldest of more than backups such files are deleted.
//
// The error is ErrEdited if the file is not as it was read, or tells what the
// system did not allow; then the file is as it was. An error with a document
// tells that the file is written and what went wrong afterwards.
func (d *File) Save(c *config.Config, backups int) (*File, error) {
	target, err := filepath.EvalSymlinks(d.Path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Path, cause(err))
	}
	if err := d.unedited(target); err != nil {
		return nil, err
	}
	data, err := rewrite(d.data, c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Path, err)
	}
	if bytes.Equal(data, d.data) {
		return d, nil
	}
	info, err := os.Stat(target)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Path, cause(err))
	}
	fresh := besides(target)
	if err := writeBeside(fresh, data, info); err != nil {
		return nil, fmt.Errorf("%s cannot be written: %w; nothing has changed", d.Path, err)
	}
	undo := func(err error) (*File, error) {
		_ = os.Remove(fresh)
		return nil, err
	}
	if err := d.unedited(target); err != nil {
		return undo(err)
	}
	if backups > 0 {
		if err := keep(target, time.Now()); err != nil {
			return undo(fmt.Errorf("%s cannot be kept: %w; nothing has changed", d.Path, cause(err)))
		}
	}
	if err := os.Rename(fresh, target); err != nil {
		return undo(fmt.Errorf("%s cannot be replaced: %w; nothing has changed", d.Path, cause(err)))
	}
	saved, problems := config.Parse(d.Path, data)
	if saved == nil { // which rewrite has looked at
		return nil, problems
	}
	next := &File{Path: d.Path, Config: saved, data: data}
	if err := syncFolder(filepath.Dir(target)); err != nil {
		return next, fmt.Errorf("%s is written, but may be lost if the machine stops now: %w", d.Path, cause(err))
	}
	return next, prune(target, backups)
}

// unedited fails if the file is not as it was read.
func (d *File) unedited(target string) error {
	data, err := readBounded(target)
	if err != nil {
		return fmt.Errorf("%s %w", d.Path, err)
	}
	if !bytes.Equal(data, d.data) {
		return fmt.Errorf("%s %w", d.Path, ErrEdited)
	}
	return nil
}

// besides is where the new file is written. The name is the same each time, so
// that what a killed process has left does not pile up.
func besides(target string) string {
	return filepath.Join(filepath.Dir(target), "."+filepath.Base(target)+".new")
}

func writeBeside(path string, data []byte, like fs.FileInfo) (err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cause(err)
	}
	// Nobody else may read it before it has its mode: there are hashes in it.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return cause(err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(path)
			err = cause(err)
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := keepOwner(f, like); err != nil {
		return fmt.Errorf("its owner cannot be kept: %w", cause(err))
	}
	if err := f.Chmod(like.Mode().Perm()); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

const backupTime = "20060102150405"

// keep gives the file a second name, which it has when the new one has taken
// the first.
func keep(target string, now time.Time) error {
	olds, err := oldFiles(target)
	if err != nil {
		return err
	}
	// Behind the last of this second: an earlier number that is free is one that
	// was deleted because it was old.
	when, n := now.Format(backupTime), 0
	for _, o := range olds {
		if o.when == when {
			n = o.n + 1
		}
	}
	for ; ; n++ {
		path := target + "-" + when
		if n > 0 {
			path += "-" + strconv.Itoa(n)
		}
		err := os.Link(target, path)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			err = duplicate(target, path) // some file systems know no second names
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
}

func duplicate(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		_ = os.Remove(to)
	}
	return err
}

var backupName = regexp.MustCompile(`^-(\d{14})(?:-(\d+))?$`)

// oldFile is a file that was kept.
type oldFile struct {
	name, when string
	n          int
}

// oldFiles returns the files that were kept, the oldest first.
func oldFiles(target string) ([]oldFile, error) {
	entries, err := os.ReadDir(filepath.Dir(target))
	if err != nil {
		return nil, err
	}
	var all []oldFile
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), filepath.Base(target))
		m := backupName.FindStringSubmatch(rest)
		if !ok || m == nil || !e.Type().IsRegular() {
			continue
		}
		n, _ := strconv.Atoi(m[2])
		all = append(all, oldFile{e.Name(), m[1], n})
	}
	slices.SortFunc(all, func(a, b oldFile) int { return cmp.Or(cmp.Compare(a.when, b.when), cmp.Compare(a.n, b.n)) })
	return all, nil
}

// prune deletes the oldest of the old files.
func prune(target string, most int) error {
	all, err := oldFiles(target)
	problems := []error{err}
	for _, o := range all[:max(0, len(all)-most)] {
		problems = append(problems, os.Remove(filepath.Join(filepath.Dir(target), o.name)))
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("%s is written, but old files of it stay: %w", target, err)
	}
	return nil
}

// cause takes off the paths that an error repeats.
func cause(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Err
	}
	return err
}
