//go:build unix

// Package debian finds the programs that tests and benchmarks run beside txlb:
// web servers, other proxies, load generators. It is not part of the program.
//
// Missing programs are installed only with $TXLB_INSTALL = yes, which the Makefile
// sets. A plain "go test" changes nothing on the machine.
// Processes that install at the same time wait for each other. No service of an
// installed package is started.
package debian

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// packages says which Debian package brings a program or a file.
var packages = map[string]string{
	"nginx":           "nginx-light",
	"haproxy":         "haproxy",
	"halog":           "haproxy",
	"ab":              "apache2-utils",
	"wrk":             "wrk",
	"curl":            "curl",
	"strace":          "strace",
	"ip":              "iproute2",
	"nft":             "nftables",
	"bash":            "bash",
	"zsh":             "zsh",
	"fish":            "fish",
	"ssh":             "openssh-client",
	"sftp":            "openssh-client",
	"ssh-keygen":      "openssh-client",
	"openssl":         "openssl",
	"sslscan":         "sslscan",
	"redis-server":    "redis-server",
	"redis-benchmark": "redis-tools",
	"promtool":        "prometheus",
	"systemd-nspawn":  "systemd-container",
	"systemd-analyze": "systemd",
	"systemctl":       "systemd",
	"journalctl":      "systemd",
	"nsenter":         "util-linux",
	"/usr/lib/nginx/modules/ngx_stream_module.so":             "libnginx-mod-stream",
	"/usr/lib/postgresql/*/bin/postgres":                      "postgresql",
	"/usr/lib/postgresql/*/bin/initdb":                        "postgresql",
	"/usr/bin/python3":                                        "python3",
	"/usr/lib/python3/dist-packages/twisted/protocols/amp.py": "python3-twisted",
	"slowhttptest":                       "slowhttptest",
	"mandoc":                             "mandoc",
	"groff":                              "groff-base",
	"dpkg-deb":                           "dpkg",
	"systemd-sysusers":                   "systemd",
	"unshare":                            "util-linux",
	"/etc/ssl/certs/ca-certificates.crt": "ca-certificates",
	"rsyslogd":                           "rsyslog",
	"bird":                               "bird2",
	"birdc":                              "bird2",
	"etcd":                               "etcd-server",
	"etcdctl":                            "etcd-client",
	"sysctl":                             "procps",
	"patroni":                            "patroni",
	"/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf": "fonts-dejavu-core",
}

// installs tells whether missing programs are to be installed.
func installs() bool { return os.Getenv("TXLB_INSTALL") == "yes" }

// Need makes sure that every program is there. With $TXLB_INSTALL = yes it installs
// missing ones, as root. The error says what is missing and how to install it.
// Programs are given by name; files, and programs outside the search path, by
// path.
func Need(programs ...string) error {
	want := missing(programs)
	if len(want) == 0 {
		return nil
	}
	how := howTo(want)
	if !installs() {
		return fmt.Errorf("%s (as root TXLB_INSTALL=yes does it)", how)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s: TXLB_INSTALL=yes can do it for root alone", how)
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("%s: %w", how, err)
	}
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "txlb-packages.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock the installation: %w", err)
	}
	defer func() { _ = lock.Close() }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock the installation: %w", err)
	}
	if want = missing(programs); len(want) == 0 { // another process has installed it meanwhile
		return nil
	}
	how = howTo(want)
	allow, err := denyServices()
	if err != nil {
		return fmt.Errorf("keep the new packages from starting services: %w", err)
	}
	defer allow()
	env := append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	for _, args := range [][]string{
		{"update", "-q"},
		append([]string{"install", "-q", "-y", "--no-install-recommends"}, want...),
	} {
		cmd := exec.Command("apt-get", append([]string{"-o", "DPkg::Lock::Timeout=120"}, args...)...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s (apt-get %s: %w)\n%s", how, args[0], err, out)
		}
	}
	if still := missing(programs); len(still) > 0 {
		return fmt.Errorf("apt-get installed them, but there is still missing: %s", strings.Join(still, " "))
	}
	return nil
}

func howTo(packages []string) string {
	return "missing: install it with apt-get install " + strings.Join(packages, " ")
}

// policy is the script that Debian's packages call before they start a service; exit
// status 101 forbids it (invoke-rc.d(8)). Tests start their own servers, and no
// other server must listen on the machine.
const policy, denial = "/usr/sbin/policy-rc.d", "#!/bin/sh\n# of the tests of txlb, while they install packages\nexit 101\n"

// denyServices forbids the start of services until allow is called. An existing
// script stays as it is.
func denyServices() (allow func(), err error) {
	switch there, err := os.ReadFile(policy); {
	case err == nil && string(there) != denial:
		return func() {}, nil
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	if err := os.WriteFile(policy, []byte(denial), 0o755); err != nil {
		return nil, err
	}
	return func() { _ = os.Remove(policy) }, nil
}

// missing returns the packages of the programs that are not there.
func missing(programs []string) []string {
	var list []string
	for _, p := range programs {
		if Path(p) != "" {
			continue
		}
		name := packages[p]
		if name == "" {
			name = p
		}
		if !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}

// Path returns the path of a program, "" if there is none. It also looks into the
// folders of root's search path. A path may be a pattern: the last file is taken,
// which is the newest version.
func Path(program string) string {
	if filepath.IsAbs(program) {
		found, err := filepath.Glob(program)
		if err != nil || len(found) == 0 {
			return ""
		}
		return found[len(found)-1]
	}
	for _, at := range []string{program, "/usr/sbin/" + program} {
		if found, err := exec.LookPath(at); err == nil {
			return found
		}
	}
	return ""
}
