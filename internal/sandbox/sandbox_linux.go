// Package sandbox runs a test in a process of its own, which has its own network,
// another user, or a kernel that refuses some system calls. What a test does to
// the system stays in that process.
//
// Limit: it is for Linux. If the system does not allow a sandbox, the test is
// skipped.
package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// variable names the test that a sandbox is for.
const variable = "TXLB_SANDBOX"

// life bounds a sandbox.
const life = 8 * time.Minute

// Network runs the calling test again in a network of its own, where only the
// loopback interface is. It returns true in there, and false in the test that has
// waited for it.
func Network(t *testing.T) bool {
	t.Helper()
	if !inside(t, namespace(syscall.CLONE_NEWNET)) {
		return false
	}
	if err := loopbackUp(); err != nil {
		t.Fatal(err)
	}
	return true
}

// Mounts runs the calling test again in a process that may mount what it likes: no
// other process sees it. It returns true in there, and false in the test that has
// waited for it.
func Mounts(t *testing.T) bool {
	t.Helper()
	if !inside(t, namespace(syscall.CLONE_NEWNS)) {
		return false
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	return true
}

// namespace is a process in a namespace of its own, in which it may do everything.
func namespace(kind uintptr) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: kind}
	if os.Getuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

// LocalPorts makes the kernel give connections the local ports from low to high,
// over IPv4 and IPv6. It is for a test in a Network of its own.
func LocalPorts(t *testing.T, low, high int) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", fmt.Appendf(nil, "%d %d", low, high), 0); err != nil {
		t.Fatal(err)
	}
}

// Unprivileged runs the calling test again as a user without privileges. It
// returns true in there, and false in the test that has waited for it.
func Unprivileged(t *testing.T) bool {
	t.Helper()
	const nobody = 65534
	attr := &syscall.SysProcAttr{}
	if os.Getuid() == 0 && os.Getenv(variable) == "" {
		attr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return inside(t, attr)
}

// NoFamily runs the calling test again in a process where socket(2) fails for an
// address family. It returns true in there, and false in the test that has waited
// for it.
func NoFamily(t *testing.T, family int) bool {
	t.Helper()
	if !inside(t, &syscall.SysProcAttr{}) {
		return false
	}
	return noCallWith(t, unix.SYS_SOCKET, 0, uint32(family), unix.EAFNOSUPPORT)
}

// NoOption runs the calling test again in a process where setsockopt(2) fails with errno
// for options of that number, whatever their level. It returns true in there, and false in
// the test that has waited for it.
func NoOption(t *testing.T, option int, errno syscall.Errno) bool {
	t.Helper()
	if !inside(t, &syscall.SysProcAttr{}) {
		return false
	}
	return noCallWith(t, unix.SYS_SETSOCKOPT, 2, uint32(option), errno)
}

// noCallWith makes a system call fail with errno if its argument of that index has the
// value. It returns true.
func noCallWith(t *testing.T, call uintptr, index, value uint32, errno syscall.Errno) bool {
	t.Helper()
	const number, arguments = 0, 16 // in struct seccomp_data
	low := arguments + 8*index
	if binaryIsBigEndian() {
		low += 4
	}
	err := filter([]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 3, K: uint32(call)},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: low},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: value},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	})
	if err != nil {
		t.Skipf("this system takes no filter of system calls: %v", err)
	}
	return true
}

// NoCall runs the calling test again in a process where a system call fails with errno.
// It returns true in there, and false in the test that has waited for it.
func NoCall(t *testing.T, call uintptr, errno syscall.Errno) bool {
	t.Helper()
	if !inside(t, &syscall.SysProcAttr{}) {
		return false
	}
	const number = 0 // in struct seccomp_data
	err := filter([]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: uint32(call)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	})
	if err != nil {
		t.Skipf("this system takes no filter of system calls: %v", err)
	}
	return true
}

func binaryIsBigEndian() bool {
	one := uint16(1)
	return *(*byte)(unsafe.Pointer(&one)) == 0
}

// filter installs a filter of system calls for the whole process.
func filter(program []unix.SockFilter) error {
	runtime.LockOSThread() // both calls are of one thread; the second is for all
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return errno
	}
	return nil
}

// loopbackUp brings the loopback interface up.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// inside tells whether the process is the sandbox of the test. If not, it runs
// the test in one and takes over the result.
func inside(t *testing.T, attr *syscall.SysProcAttr) bool {
	t.Helper()
	if os.Getenv(variable) == t.Name() {
		return true
	}
	attr.Pdeathsig = syscall.SIGKILL
	var out bytes.Buffer
	// A user who cannot enter the folder of the program can run it by this name.
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.v", "-test.run=^"+t.Name()+"$", "-test.timeout="+life.String())
	cmd.Env = append(os.Environ(), variable+"="+t.Name(), "TMPDIR=/tmp")
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &out, &out, attr
	runtime.LockOSThread() // the sandbox dies with the thread that starts it
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	// EINVAL: a kernel without such namespaces; ENOEXEC: the program runs in an emulator.
	if slices.ContainsFunc([]error{syscall.EPERM, syscall.ENOSPC, syscall.EINVAL, syscall.ENOEXEC}, func(no error) bool { return errors.Is(err, no) }) {
		t.Skipf("this system gives no sandbox: %v", err)
	}
	switch text := out.String(); {
	case err != nil:
		t.Errorf("in the sandbox: %v\n%s", err, text)
	case bytes.Contains(out.Bytes(), []byte("--- SKIP")):
		t.Skipf("in the sandbox:\n%s", text)
	case !bytes.Contains(out.Bytes(), []byte("--- PASS: "+t.Name())):
		t.Errorf("the sandbox has not run the test:\n%s", text)
	default:
		t.Logf("in the sandbox:\n%s", text)
	}
	return false
}

// InNetwork calls f on a thread that is in the network of a file, such as
// /proc/PID/ns/net: a socket stays where it was made. The thread goes back afterwards and
// lives on, because programs that it has started would be killed with it (Pdeathsig).
func InNetwork(file string, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer func() { _ = home.Close() }()
	there, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = there.Close() }()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("setns", err)
	}
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err) // the thread would serve other tests from the wrong network
		}
	}()
	return f()
}
