// Package document has a configuration as the text of a file. [Open] reads it.
// [File.Save] writes a model to it: unchanged parts stay as people wrote them, with
// comments, order and layout.
//
// Compatibility: this package may change in a minor version; package txlb does not.
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
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/txlb/txlb/config"
)

// File is a configuration file as it was last read or written. It does not
// change; Save returns another one.
type File struct {
	Path   string
	Config *config.Config // what it says
	// Notes are what users should know about the Save that wrote it; none if it was
	// written as usual.
	Notes []string
	data  []byte
}

// ErrEdited means that the file was not overwritten because somebody else has
// changed it.
var ErrEdited = errors.New("has been changed by hand since it was read; reload it first, or discard the run-time changes")

// Open reads and checks a file. There is no File if there are errors among the
// problems.
func Open(path string) (*File, config.Problems) {
	data, err := readBounded(path)
	if err != nil {
		return nil, config.Problems{{File: path, Text: err.Error()}}
	}
	return Read(path, data)
}

// Read is Open for a file that was read before: data is what [File.Data] has returned. The
// file may say something else by now.
func Read(path string, data []byte) (*File, config.Problems) {
	c, problems := config.Parse(path, data)
	if c == nil {
		return nil, problems
	}
	return &File{Path: path, Config: c, data: data}, problems
}

// Data returns the bytes of the file as it was read or written. They must not be changed,
// and may contain password hashes.
func (d *File) Data() []byte { return d.data }

// readBounded reads a file, or just enough of a large one that Parse rejects it as
// too large.
func readBounded(path string) ([]byte, error) {
	// Checked before opening: opening a named pipe would wait for a writer.
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

// Save writes c to the file and returns the new File; without a difference it
// writes nothing. At every moment the file is the old or the new one, complete,
// even if the process or the machine stops: the new one is written beside it,
// synced to disk and renamed. Mode, owner and group stay, and a symbolic link keeps
// pointing at it. See rewrite for which text stays. A user who may write the folder
// but not give files away becomes the owner.
//
// The old file is kept beside as FILE-YYYYmmddHHMMSS (followed by -1, -2 within one
// second, and after the clock was set back); the oldest of more than backups such
// files are deleted.
//
// Where the system does not let the file be replaced (a file that is mounted, a
// folder that may not be written), it is copied and then written in place. That can
// leave a mixture if the machine stops meanwhile. Notes say so.
//
// The error is ErrEdited if the file has changed since it was read; otherwise it
// says what the system did not allow. The file is then unchanged and nothing else
// is left behind. An error together with a File means that the file was written and
// that something failed afterwards.
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
	saved, problems := config.Parse(d.Path, data)
	if saved == nil { // which rewrite has looked at
		return nil, problems
	}
	info, err := os.Stat(target)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Path, cause(err))
	}
	next := &File{Path: d.Path, Config: saved, data: data}
	kept, err := d.replace(next, target, info, backups > 0)
	if why, is := errors.AsType[stepError](err); is && forbidden(why) {
		if kept, err = d.overwrite(next, target, backups > 0); err == nil {
			next.Notes = append([]string{fmt.Sprintf("%s cannot be replaced (%v): it was written in place, which may leave it incomplete if the machine stops meanwhile", d.Path, cause(why.err))}, next.Notes...)
		} else if !errors.Is(err, ErrEdited) && !errors.Is(err, errDamaged) {
			err = fmt.Errorf("%w, nor written in place: %w", why, err)
		}
	}
	_, ofStep := errors.AsType[stepError](err)
	switch {
	case err != nil && !ofStep && !errors.Is(err, errDamaged):
		return nil, err
	case errors.Is(err, errDamaged):
		return nil, fmt.Errorf("%s %w", d.Path, err)
	case err != nil:
		return nil, fmt.Errorf("%s cannot be %w; nothing has changed", d.Path, err)
	}
	if err := syncFolder(filepath.Dir(target)); err != nil {
		return next, fmt.Errorf("%s is written, but may be lost if the machine stops now: %w", d.Path, cause(err))
	}
	return next, prune(target, backups, kept)
}

// stepError is an error of a step of Save. The step completes "FILE cannot be …".
type stepError struct {
	what string
	err  error
}

func (e stepError) Error() string { return e.what + ": " + cause(e.err).Error() }
func (e stepError) Unwrap() error { return e.err }

// forbidden tells whether the system does not allow a file to be replaced, so that
// writing in place may still work. A full disk is not such a reason.
func forbidden(err error) bool {
	for _, why := range []error{fs.ErrPermission, syscall.EBUSY, syscall.EROFS} {
		if errors.Is(err, why) {
			return true
		}
	}
	return false
}

// replace renames the next file over this one, which it keeps as a backup if asked
// to.
func (d *File) replace(next *File, target string, info fs.FileInfo, keeps bool) (kept string, err error) {
	fresh := besides(target)
	note, err := writeBeside(fresh, next.data, info)
	if err != nil {
		return "", stepError{"written", err}
	}
	defer func() {
		if err != nil {
			_ = os.Remove(fresh)
			forget(kept)
		}
	}()
	if err := d.unedited(target); err != nil {
		return "", err
	}
	if keeps {
		if kept, err = keep(target, time.Now(), link); err != nil {
			return "", stepError{"kept", err}
		}
	}
	if err := os.Rename(fresh, target); err != nil {
		return kept, stepError{"replaced", err}
	}
	if note != "" {
		next.Notes = append(next.Notes, d.Path+" "+note)
	}
	return kept, nil
}

// errDamaged tells that a file is neither the old nor the new one.
var errDamaged = errors.New("is damaged")

// overwrite writes the next file's bytes into this one, without a rename. It copies
// this one first if asked to and allowed.
func (d *File) overwrite(next *File, target string, keeps bool) (kept string, err error) {
	f, err := os.OpenFile(target, os.O_RDWR, 0)
	if err != nil {
		return "", cause(err)
	}
	defer func() { _ = f.Close() }() // Sync has told what could go wrong
	now, err := io.ReadAll(io.LimitReader(f, config.MaxSize+1))
	if err != nil {
		return "", cause(err)
	}
	if !bytes.Equal(now, d.data) {
		return "", fmt.Errorf("%s %w", d.Path, ErrEdited)
	}
	if keeps {
		switch kept, err = keep(target, time.Now(), duplicate); {
		case forbidden(err):
			next.Notes = append(next.Notes, fmt.Sprintf("the old %s cannot be kept: %v", d.Path, cause(err)))
		case err != nil:
			return "", stepError{"kept", err}
		}
	}
	err = put(f, now, next.data)
	if err == nil {
		return kept, nil
	}
	if back := put(f, next.data, now); back != nil { // what is there of it
		where := "no copy of it is there"
		if kept != "" {
			where = "the old one is " + kept
		}
		return kept, fmt.Errorf("%w, as it could not be written in place (%w) nor restored (%w); %s", errDamaged, cause(err), cause(back), where)
	}
	forget(kept)
	return "", cause(err)
}

// put changes the bytes of a file from was to is. It extends the file first, so
// that a full disk is found before anything is lost.
func put(f *os.File, was, is []byte) error {
	if n := len(was); len(is) > n {
		if _, err := f.WriteAt(is[n:], int64(n)); err != nil {
			return errors.Join(err, f.Truncate(int64(n)))
		}
	}
	if _, err := f.WriteAt(is[:min(len(is), len(was))], 0); err != nil {
		return err
	}
	if err := f.Truncate(int64(len(is))); err != nil {
		return err
	}
	return f.Sync()
}

// forget removes a copy that is not needed, because the save failed.
func forget(kept string) {
	if kept != "" {
		_ = os.Remove(kept)
	}
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

// besides is where the new file is written. The name is the same each time, so that
// files left by killed processes do not pile up.
func besides(target string) string {
	return filepath.Join(filepath.Dir(target), "."+filepath.Base(target)+".new")
}

// writeBeside writes a file with mode, owner and group of another. The note says
// which of these could not be kept, "" if all were.
func writeBeside(path string, data []byte, like fs.FileInfo) (note string, err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", cause(err)
	}
	// Nobody else may read it before it has its mode: there are hashes in it.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", cause(err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(path)
			err = cause(err)
		}
	}()
	if _, err := f.Write(data); err != nil {
		return "", err
	}
	// The mode comes first: it is the owner's to set.
	if err := f.Chmod(like.Mode().Perm()); err != nil {
		return "", err
	}
	if note, err = keepOwner(f, like); err != nil {
		return "", err
	}
	if err := f.Sync(); err != nil {
		return "", err
	}
	return note, f.Close()
}

const backupTime = "20060102150405"

// keep makes a copy of a file beside it and returns its path. The name sorts after
// all earlier copies, even if the clock was set back.
func keep(target string, now time.Time, copied func(from, to string) error) (path string, err error) {
	olds, err := oldFiles(target)
	if err != nil {
		return "", err
	}
	when, n := now.Format(backupTime), 0
	if len(olds) > 0 {
		// A lower number that is free belonged to a copy that was deleted as too old.
		if last := olds[len(olds)-1]; when <= last.when {
			when, n = last.when, last.n+1
		}
	}
	for ; ; n++ {
		path := target + "-" + when
		if n > 0 {
			path += "-" + strconv.Itoa(n)
		}
		switch err := copied(target, path); {
		case err == nil:
			return path, nil
		case !errors.Is(err, fs.ErrExist):
			return "", err
		}
	}
}

// link gives a file a second name. It is quick, and enough if another file takes
// the first name.
func link(from, to string) error {
	err := os.Link(from, to)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		err = duplicate(from, to) // some file systems know no second names
	}
	return err
}

// duplicate copies a file. Only those who may read the file may read the copy.
func duplicate(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	mode := info.Mode().Perm()
	if _, err := keepOwner(out, info); err != nil { // it has another group
		mode &^= 0o070
	}
	_, err = io.Copy(out, in)
	if err == nil {
		_ = out.Chmod(mode) // else it stays with its owner
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

// prune deletes the oldest of the old files, but never the one that was just made.
func prune(target string, most int, newest string) error {
	all, err := oldFiles(target)
	problems := []error{err}
	for _, o := range all[:max(0, len(all)-most)] {
		if path := filepath.Join(filepath.Dir(target), o.name); path != newest {
			problems = append(problems, os.Remove(path))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("%s is written, but old files of it stay: %w", target, err)
	}
	return nil
}

// cause removes the paths that an error repeats.
func cause(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Err
	}
	return err
}
