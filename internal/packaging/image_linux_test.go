package packaging

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/sandbox"
	"github.com/txlb/txlb/internal/testkit"
)

// image is what the last stage of the Dockerfile says.
type image struct {
	copies     []copied
	env        []string
	uid, gid   int
	volumes    []string
	health     []string
	entrypoint []string
	cmd        []string
}

// copied is one COPY.
type copied struct {
	from, to string
	uid, gid int
}

// readDockerfile reads the last stage. An instruction that it does not know is an error:
// then the image would be another than the one that is tested.
func readDockerfile(text string) (*image, error) {
	var i image
	_, stage, found := strings.Cut(text, "\nFROM scratch\n")
	if !found {
		return nil, errors.New("it has no stage FROM scratch")
	}
	list := func(s string) (words []string, err error) {
		err = json.Unmarshal([]byte(s), &words)
		return words, err
	}
	owner := func(s string) (uid, gid int, err error) {
		u, g, _ := strings.Cut(s, ":")
		uid, errU := strconv.Atoi(u)
		gid, errG := strconv.Atoi(g)
		return uid, gid, errors.Join(errU, errG)
	}
	for line := range strings.Lines(stage) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		instruction, rest, _ := strings.Cut(line, " ")
		var err error
		switch instruction {
		case "COPY":
			c := copied{}
			words := strings.Fields(rest)
			for ; len(words) > 0 && strings.HasPrefix(words[0], "--"); words = words[1:] {
				switch flag, value, _ := strings.Cut(words[0], "="); flag {
				case "--from":
				case "--chown":
					c.uid, c.gid, err = owner(value)
				default:
					err = errors.New("unknown flag")
				}
			}
			if len(words) != 2 {
				return nil, fmt.Errorf("%s: want a source and a destination", line)
			}
			c.from, c.to = words[0], words[1]
			i.copies = append(i.copies, c)
		case "ENV":
			i.env = append(i.env, rest)
		case "USER":
			i.uid, i.gid, err = owner(rest)
		case "VOLUME":
			i.volumes, err = list(rest)
		case "HEALTHCHECK":
			_, command, _ := strings.Cut(rest, "CMD ")
			i.health, err = list(command)
		case "ENTRYPOINT":
			i.entrypoint, err = list(rest)
		case "CMD":
			i.cmd, err = list(rest)
		case "STOPSIGNAL":
			if rest != "SIGTERM" {
				err = errors.New("want SIGTERM")
			}
		default:
			err = errors.New("unknown instruction")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", line, err)
		}
	}
	return &i, nil
}

// build makes the root folder of the image from what `make image` has made.
func (i *image) build(t *testing.T, made, root string) {
	t.Helper()
	for _, c := range i.copies {
		from := filepath.Join(made, strings.TrimPrefix(c.from, "/image"))
		err := filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			relative, err := filepath.Rel(from, name)
			if err != nil {
				return err
			}
			to := filepath.Join(root, c.to, relative)
			if d.IsDir() {
				if err := os.Mkdir(to, 0o755); errors.Is(err, fs.ErrExist) {
					return nil
				} else if err != nil {
					return err
				}
				return os.Chown(to, c.uid, c.gid)
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			return errors.Join(os.WriteFile(to, text, info.Mode()), os.Chown(to, c.uid, c.gid))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// madeImage is the image of a test in a sandbox, which cannot make it again.
const madeImage = "TXLB_IMAGE"

// The image runs as its user, as the first process, with a root that is read-only: it gets
// ready, is healthy, and stops on SIGTERM. There is no Docker here: this test does what the
// Dockerfile says.
func TestImage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	debian.NeedFor(t, "unshare", "/etc/ssl/certs/ca-certificates.crt")
	text, err := os.ReadFile(root + "/Dockerfile")
	if os.Getenv(madeImage) == "" {
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		made(t, "image", "9.8.7", dir)
		if err := os.WriteFile(dir+"/Dockerfile", text, 0o644); err != nil {
			t.Fatal(err)
		}
		t.Setenv(madeImage, dir)
	}
	if !sandbox.Mounts(t) {
		return
	}
	made := os.Getenv(madeImage)
	if text, err = os.ReadFile(made + "/Dockerfile"); err != nil {
		t.Fatal(err)
	}
	i, err := readDockerfile(string(text))
	if err != nil {
		t.Fatalf("Dockerfile: %v", err)
	}
	if i.uid == 0 || i.gid == 0 {
		t.Errorf("it runs as %d:%d", i.uid, i.gid)
	}
	root := t.TempDir()
	mount := func(what, at, kind string, flags uintptr, data string) {
		t.Helper()
		if err := unix.Mount(what, at, kind, flags, data); err != nil {
			t.Skipf("%s cannot be mounted: %v", at, err)
		}
	}
	mount("tmpfs", root, "tmpfs", 0, "mode=0755")
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	i.build(t, made, root)
	// What Docker adds: mount points, the configuration, and volumes that begin as copies of
	// what the image has there.
	for _, folder := range []string{"/proc", "/dev", "/etc/txlb"} {
		if err := os.MkdirAll(root+folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	configuration := `<config>
  <service name="web"><listen ip="127.0.0.1:0"/><group name="main"><host name="a" ip="127.0.0.1:9"/></group></service>
  <admin><web listen="127.0.0.1:0"/><user name="ann" password="$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5" access="full"/><socket path="/run/txlb/admin.sock"/></admin>
</config>`
	if err := os.WriteFile(root+"/etc/txlb/config.xml", []byte(configuration), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, v := range i.volumes {
		var is unix.Stat_t
		if err := unix.Stat(root+v, &is); err != nil {
			t.Fatal(err)
		}
		mount("tmpfs", root+v, "tmpfs", 0, fmt.Sprintf("mode=%o,uid=%d,gid=%d", is.Mode&0o7777, is.Uid, is.Gid))
	}
	mount("", root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
	if err := os.WriteFile(root+"/x", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Fatalf("the root is not read-only: %v", err)
	}

	healthy := func() error {
		cmd := exec.Command(i.health[0], i.health[1:]...)
		cmd.Env, cmd.Dir = i.env, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: uint32(i.uid), Gid: uint32(i.gid)}}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	}
	if healthy() == nil {
		t.Error("it is healthy before it runs")
	}
	args := []string{"--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--root=" + root, "--setgid=" + strconv.Itoa(i.gid), "--setuid=" + strconv.Itoa(i.uid)}
	cmd := exec.CommandContext(t.Context(), "unshare", append(append(args, i.entrypoint...), i.cmd...)...)
	var log testkit.Log
	cmd.Env, cmd.Stdout, cmd.Stderr = i.env, &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	testkit.Eventually(t, "the image is healthy", func() bool {
		select {
		case err := <-ended:
			t.Fatalf("it has ended: %v\n%s", err, log.String())
		default:
		}
		return healthy() == nil
	})
	testkit.Eventually(t, "the certificate of the page is in /var/lib/txlb", func() bool {
		kept, err := os.ReadDir(root + "/var/lib/txlb")
		return err == nil && len(kept) > 0
	})
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
	if err != nil {
		t.Skipf("the first process of the container cannot be found: %v", err)
	}
	first, err := strconv.Atoi(string(bytes.TrimSpace(children)))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(first, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, log.String())
	}
}
