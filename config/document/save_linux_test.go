package document

import (
	"bufio"
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
