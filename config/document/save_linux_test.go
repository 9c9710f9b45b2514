package document

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/config/internal/models"
	"github.com/txlb/txlb/internal/sandbox"
)

// saverFile is the variable of the environment that makes the test below save
// the file it names until it is killed.
const saverFile = "TXLB_TEST_SAVE"

// Whenever a process is killed, the file is the old or the new one, whole.
func TestSaveSurvivesKill(t *testing.T) {
	if path := os.Getenv(saverFile); path != "" {
		saveForEver(path)
	}
	path := sampleFile(t)
	d := readDocument(t, path)
	// Large, so that most of the time goes to writing.
	big := d.Config.Clone()
	g := big.Services[0].Groups[1]
	for i := range 300 {
		h := *g.Hosts[0]
		h.Name = fmt.Sprint("many", i)
		g.Hosts = append(g.Hosts, &h)
	}
	if _, err := d.Save(big, 0); err != nil {
		t.Fatal(err)
	}
	whole := map[string]bool{}
	for _, weight := range []int{3, 4} {
		data, err := rewrite(readDocument(t, path).data, weigh(big, weight))
		if err != nil {
			t.Fatal(err)
		}
		whole[string(data)] = true
	}
	begun, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole[string(begun)] = true
	seen := map[string]int{}
	rounds := 40
	if testing.Short() {
		rounds = 5
	}
	for round := 0; round < rounds || len(seen) < 2 && round < 10*rounds; round++ {
		cmd := exec.Command(os.Args[0], "-test.run=^TestSaveSurvivesKill$")
		cmd.Env = append(os.Environ(), saverFile+"="+path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() || lines.Text() != "saving" {
			t.Fatalf("the process said %q", lines.Text())
		}
		// Any moment will do; a slow machine needs longer to come to a save.
		time.Sleep(time.Duration(rand.Int64N(int64(60*time.Millisecond + time.Duration(round)*5*time.Millisecond))))
		_ = cmd.Process.Kill()
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "failed") {
				t.Error(lines.Text())
			}
		}
		_ = cmd.Wait()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !whole[string(data)] {
			t.Fatalf("the file is neither the old nor the new one: %d bytes", len(data))
		}
		seen[string(data)]++
		backups, err := filepath.Glob(path + "-*")
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range backups {
			if data, err := os.ReadFile(b); err != nil || !whole[string(data)] {
				t.Fatalf("the old file %s is not whole: %v", b, err)
			}
		}
	}
	last := readDocument(t, path)
	if _, err := last.Save(weigh(last.Config, 9), 3); err != nil || len(folder(t, path)) > 4 {
		t.Errorf("at the end: %v, folder %v", err, folder(t, path))
	}
	if len(seen) < 2 {
		t.Errorf("only %d states were seen in %d rounds", len(seen), rounds)
	}
}

func saveForEver(path string) {
	d, problems := Open(path)
	if d == nil {
		fmt.Println("failed", problems)
		os.Exit(1)
	}
	fmt.Println("saving")
	for i := 0; ; i++ {
		next, err := d.Save(weigh(d.Config, 3+i%2), 3)
		if err != nil {
			fmt.Println("failed", err)
			os.Exit(1)
		}
		d = next
	}
}

// A disk that is full, or a folder that cannot be written, is told, and changes
// nothing.
func TestSaveWhereItCannot(t *testing.T) {
	if os.Getuid() != 0 {
		path := sampleFile(t)
		d := readDocument(t, path)
		if err := os.Chmod(filepath.Dir(path), 0o500); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.Chmod(filepath.Dir(path), 0o700) }()
		if err := os.Chmod(path, 0o400); err != nil {
			t.Fatal(err)
		}
		expectRefused(t, d, "permission denied")
		return
	}
	dir := t.TempDir()
	mount := func(flags uintptr, options string) {
		t.Helper()
		if err := syscall.Mount("txlb-test", dir, "tmpfs", flags, options); err != nil {
			t.Skipf("no file system can be mounted: %v", err)
		}
	}
	mount(0, "size=64k")
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	path := filepath.Join(dir, "c.xml")
	if err := os.WriteFile(path, models.Samples(t)["config.xml"], 0o600); err != nil {
		t.Fatal(err)
	}
	d := readDocument(t, path)
	full, err := os.Create(filepath.Join(dir, "full"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = full.Write(make([]byte, 512))
	}
	_ = full.Close()
	expectRefused(t, d, "no space left on device")
	if err := os.Remove(full.Name()); err != nil {
		t.Fatal(err)
	}
	mount(syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
	expectRefused(t, d, "read-only file system")
}

// smallFile writes a configuration where a sandbox finds it.
func smallFile(t *testing.T, dir string, mode os.FileMode) (path string, d *File) {
	t.Helper()
	path = filepath.Join(dir, "c.xml")
	text := `<config><!-- kept --><service name="a"><listen ip=":1"/><group name="g"><host name="h" ip="1.2.3.4:5"/></group></service></config>`
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path, readDocument(t, path)
}

func bind(t *testing.T, path string, flags uintptr) {
	t.Helper()
	err := syscall.Mount(path, path, "", syscall.MS_BIND, "")
	if err == nil && flags != 0 {
		err = syscall.Mount("", path, "", syscall.MS_BIND|syscall.MS_REMOUNT|flags, "")
	}
	if err != nil {
		t.Skipf("no file can be mounted: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(path, syscall.MNT_DETACH) })
}

// A file that is mounted, as containers do it, cannot be replaced: it is copied,
// written in place, and that is said. Nothing piles up.
func TestSaveToAMountedFile(t *testing.T) {
	if !sandbox.Mounts(t) {
		return
	}
	path, d := smallFile(t, t.TempDir(), 0o640)
	bind(t, path, 0)
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	old := string(d.data)
	for i := range 20 {
		next, err := d.Save(weigh(d.Config, 2+i*997), 3) // longer and shorter
		if err != nil {
			t.Fatal(err)
		}
		if len(next.Notes) != 1 || !strings.Contains(next.Notes[0], path+" cannot be replaced (device or resource busy): it was written in place") {
			t.Errorf("notes %q", next.Notes)
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != string(next.data) || !strings.Contains(string(now), "<!-- kept -->") {
			t.Fatalf("%v, the file says\n%s\nwant\n%s", err, now, next.data)
		}
		olds, err := oldFiles(path)
		if err != nil || len(olds) != min(i+1, 3) || len(folder(t, path)) != len(olds)+1 {
			t.Fatalf("after %d saves: %v, %v, %v", i+1, olds, folder(t, path), err)
		}
		kept := filepath.Join(filepath.Dir(path), olds[len(olds)-1].name)
		if data, err := os.ReadFile(kept); err != nil || string(data) != old {
			t.Errorf("what was kept last is not the old file: %v", err)
		}
		if info, err := os.Stat(kept); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("%s: %v, %v", kept, info.Mode(), err)
		}
		old, d = string(next.data), next
	}
	after, err := os.Stat(path)
	if err != nil || !os.SameFile(before, after) || after.Mode() != before.Mode() {
		t.Errorf("it is another file: %v", err)
	}
	// What somebody else has written is not overwritten in place either.
	if err := os.WriteFile(path, append(d.data, "<!-- by hand -->"...), 0); err != nil {
		t.Fatal(err)
	}
	names := folder(t, path)
	if _, err := d.Save(weigh(d.Config, 5), 10); !errors.Is(err, ErrEdited) || len(folder(t, path)) != len(names) {
		t.Errorf("said %v, folder %v", err, folder(t, path))
	}
}

// A save that fails leaves nothing behind, however often it is tried.
func TestSaveThatFailsLeavesNothing(t *testing.T) {
	if !sandbox.Mounts(t) {
		return
	}
	path, d := smallFile(t, t.TempDir(), 0o640)
	bind(t, path, syscall.MS_RDONLY)
	for range 20 {
		_, err := d.Save(weigh(d.Config, 7), 10)
		if err == nil || !strings.Contains(err.Error(), "cannot be replaced: device or resource busy, nor written in place: read-only file system; nothing has changed") {
			t.Fatalf("said %v", err)
		}
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != string(d.data) || len(folder(t, path)) != 1 {
		t.Errorf("%v, folder %v", err, folder(t, path))
	}
}

// A disk that gets full while a file is written in place costs nothing that was
// there.
func TestSaveInPlaceToAFullDisk(t *testing.T) {
	if !sandbox.Mounts(t) {
		return
	}
	path, d := smallFile(t, t.TempDir(), 0o640)
	disk := t.TempDir()
	if err := syscall.Mount("txlb-test", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	elsewhere, _ := smallFile(t, disk, 0o640)
	if err := syscall.Mount(elsewhere, path, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(path, syscall.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(disk, "full"), make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	big := d.Config.Clone()
	g := big.Services[0].Groups[0]
	for i := range 300 {
		h := *g.Hosts[0]
		h.Name = fmt.Sprint("many", i)
		g.Hosts = append(g.Hosts, &h)
	}
	_, err := d.Save(big, 10)
	if err == nil || !strings.Contains(err.Error(), "no space left on device; nothing has changed") {
		t.Errorf("said %v", err)
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != string(d.data) || len(folder(t, path)) != 1 {
		t.Errorf("%v, folder %v, the file says\n%s", err, folder(t, path), now)
	}
}

// In a folder that may not be written there is no copy, which is said; the file
// itself may be.
func TestSaveInAFolderThatIsReadOnly(t *testing.T) {
	if !sandbox.Mounts(t) {
		return
	}
	dir := t.TempDir()
	path, d := smallFile(t, dir, 0o640)
	bind(t, dir, syscall.MS_RDONLY)
	elsewhere, _ := smallFile(t, t.TempDir(), 0o640)
	if err := syscall.Mount(elsewhere, path, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(path, syscall.MNT_DETACH) })
	next, err := d.Save(weigh(d.Config, 7), 10)
	if err != nil {
		t.Fatal(err)
	}
	notes := strings.Join(next.Notes, "\n")
	for _, want := range []string{"cannot be replaced (read-only file system): it was written in place", "the old " + path + " cannot be kept: read-only file system"} {
		if !strings.Contains(notes, want) {
			t.Errorf("%q is not in the notes: %s", want, notes)
		}
	}
	if again := readDocument(t, path); again.Config.Services[0].Groups[0].Hosts[0].Weight != 7 || len(folder(t, path)) != 1 {
		t.Errorf("folder %v, the file says\n%s", folder(t, path), again.data)
	}
}

// A folder that its group may write is enough: neither it nor the file has to belong
// to the process.
func TestSaveInAGroupsFolder(t *testing.T) {
	const nobody, variable = 65534, "TXLB_TEST_GROUP_FOLDER"
	if os.Getuid() == 0 && os.Getenv(variable) == "" {
		dir, err := os.MkdirTemp("/tmp", "txlb")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		path, _ := smallFile(t, dir, 0o640)
		for name, mode := range map[string]os.FileMode{dir: 0o770, path: 0o640} {
			if err := os.Chown(name, 0, nobody); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(name, mode); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv(variable, path)
	}
	if !sandbox.Unprivileged(t) {
		return
	}
	path := os.Getenv(variable)
	if path == "" || os.Getuid() != nobody {
		t.Skip("it takes root to make such a folder")
	}
	d := readDocument(t, path)
	next, err := d.Save(weigh(d.Config, 7), 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(next.Notes) != 1 || !strings.Contains(next.Notes[0], "belongs to user 65534 now, and not to 0 any more") {
		t.Errorf("notes %q", next.Notes)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil || st.Gid != nobody || st.Mode&0o777 != 0o640 || len(folder(t, path)) != 2 {
		t.Errorf("group %d, mode %o, folder %v, %v", st.Gid, st.Mode&0o777, folder(t, path), err)
	}
	if next, err = next.Save(weigh(d.Config, 8), 10); err != nil || len(next.Notes) > 0 {
		t.Errorf("the next one: %v, %q", err, next.Notes)
	}
}

func expectRefused(t *testing.T, d *File, why string) {
	t.Helper()
	before := folder(t, d.Path)
	_, err := d.Save(weigh(d.Config, 7), 10)
	if err == nil || !strings.Contains(err.Error(), why) || !strings.HasPrefix(err.Error(), d.Path) {
		t.Errorf("said %v, want %s", err, why)
	}
	if now, err := os.ReadFile(d.Path); err != nil || string(now) != string(d.data) || len(folder(t, d.Path)) != len(before) {
		t.Errorf("something has changed: %v, %v", folder(t, d.Path), err)
	}
}
