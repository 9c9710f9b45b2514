package metrics

import "testing"

func TestParseOverflows(t *testing.T) {
	const text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 42 43\nIpExt: InNoRoutes\nIpExt: 0\n"
	if n, ok := parseOverflows([]byte(text)); !ok || n != 42 {
		t.Errorf("%d, %v", n, ok)
	}
	if _, ok := parseOverflows([]byte("TcpExt: A B\nTcpExt: 1\n")); ok {
		t.Error("found what is not there")
	}
	if _, ok := listenOverflows(); !ok {
		t.Error("this kernel does not tell")
	}
}
