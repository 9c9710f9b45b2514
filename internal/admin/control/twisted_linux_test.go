package control

import (
	"context"
	"os/exec"
	"testing"

	"github.com/txlb/txlb/internal/debian"
)

// The client that the ancestor's users have: Twisted's AMP, with the command
// as the ancestor defined it, and one with the backend's address in addition.
const twistedClient = `
import sys
from twisted.internet import reactor, defer
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.protocols import amp

class UnknownPort(Exception):
    pass

class Ask(amp.Command):
    commandName = b"GetClientAddress"
    arguments = [(b"host", amp.String()), (b"port", amp.Integer())]
    response = [(b"host", amp.String()), (b"port", amp.Integer())]
    errors = {UnknownPort: b"UNKNOWN_PORT"}

class AskWith(Ask):
    commandName = b"GetClientAddress"
    arguments = Ask.arguments + [(b"backend", amp.String())]

class Sum(amp.Command):
    arguments = [(b"a", amp.Integer())]

@defer.inlineCallbacks
def main():
    try:
        p = yield connectProtocol(UNIXClientEndpoint(reactor, sys.argv[1]), amp.AMP())
        r = yield p.callRemote(Ask, host=b"127.0.0.1", port=1001)
        print(r["host"].decode(), r["port"])
        r = yield p.callRemote(AskWith, host=b"127.0.0.1", port=1002, backend=b"127.0.0.1:81")
        print(r["host"].decode(), r["port"])
        for port in (9, 1002):
            try:
                yield p.callRemote(Ask, host=b"127.0.0.1", port=port)
                print("no error")
            except UnknownPort as e:
                print("unknown:", e)
        try:
            yield p.callRemote(Sum, a=1)
            print("no error")
        except amp.UnhandledCommand:
            print("unhandled")
        many = yield defer.gatherResults([p.callRemote(Ask, host=b"127.0.0.1", port=1001) for _ in range(100)])
        print(len(many), set((r["host"], r["port"]) for r in many) == {(b"192.0.2.7", 51234)})
    finally:
        reactor.stop()

d = main()
d.addErrback(lambda f: print("failed:", f))
reactor.run()
`

func TestTwistedUnderstandsIt(t *testing.T) {
	debian.NeedFor(t, "/usr/bin/python3", "/usr/lib/python3/dist-packages/twisted/protocols/amp.py")
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "/usr/bin/python3", "-c", twistedClient, serve(t, table)).CombinedOutput()
	const want = `192.0.2.7 51234
2001:db8::1 9
unknown: 127.0.0.1:9 is not a connection to a backend
unknown: 127.0.0.1:1002 is the address of 2 connections; add the backend's own address
unhandled
100 True
`
	if err != nil || string(out) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out, want)
	}
}
