package keeper

import (
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// send sends one message with descriptors.
func send(conn *net.UnixConn, b []byte, files []int) error {
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	_, _, err := conn.WriteMsgUnix(b, rights, nil)
	return err
}

// receive receives one message. The caller owns the descriptors.
func receive(conn *net.UnixConn, room []byte) (b []byte, files []int, err error) {
	oob := make([]byte, unix.CmsgSpace(4*2*perMessage))
	n, m, flags, _, err := conn.ReadMsgUnix(room, oob)
	if err != nil {
		return nil, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:m])
	for i := range messages {
		some, parsed := unix.ParseUnixRights(&messages[i])
		files, err = append(files, some...), errors.Join(err, parsed)
	}
	switch {
	case err != nil:
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = errors.New("a message is too long, or there is no room for its descriptors")
	case n == 0: // no message is empty
		err = net.ErrClosed
	default:
		return room[:n], files, nil
	}
	closeAll(files)
	return nil, nil, err
}

// hungUp tells whether the other end is closed.
func hungUp(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	poll := []unix.PollFd{{Events: unix.POLLIN}}
	err = raw.Control(func(fd uintptr) {
		poll[0].Fd = int32(fd)
		_, _ = unix.Poll(poll, 0)
	})
	return err != nil || poll[0].Revents&unix.POLLHUP != 0
}

func closeAll(files []int) {
	for _, fd := range files {
		_ = unix.Close(fd)
	}
}

// Listen listens on a path. Who may write to the socket is who owns it.
func Listen(path string) (*net.UnixListener, error) {
	if conn, err := net.Dial("unixpacket", path); err == nil {
		_ = conn.Close()
		return nil, &net.OpError{Op: "listen", Net: "unixpacket", Addr: &net.UnixAddr{Name: path, Net: "unixpacket"}, Err: unix.EADDRINUSE}
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		_ = os.Remove(path) // of a keeper that was killed
	}
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ln, nil
}
