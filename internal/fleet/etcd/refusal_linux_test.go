package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
)

// told waits until a node that has joined says why the store refuses what it asks, or, with "",
// until it says that no more.
func told(t *testing.T, m *member, why string) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("the node says %q", why), func() bool {
		s := m.Status()
		return s.Joined && strings.Contains(s.Refused, why) && (why != "" || s.Refused == "")
	})
}

// An etcd that renews leases and refuses all else: without space, and when logins are switched on
// or the rights of the node are taken away. The node says so, and no more when that is mended.
func TestRefusalIsTold(t *testing.T) {
	_, urls := cluster(t, 1, "--quota-backend-bytes", "400000")
	a := join(t, "a", urls)
	joined(t, a)
	client := open(t, config.Fleet{Store: urls}).(*store).client
	ctx := soon(t)
	for i := 0; ; i++ {
		if _, err := client.Put(ctx, fmt.Sprint("/fill/", i), strings.Repeat("x", 100_000)); err != nil {
			break
		}
	}
	if _, err := a.weigh(2); err == nil {
		t.Fatal("a full store takes a change")
	}
	told(t, a, "it cannot write to the store: etcd: mvcc: database space exceeded")
	r, err := client.Delete(ctx, "/fill/", clientv3.WithPrefix())
	if err == nil {
		_, err = client.Compact(ctx, r.Header.Revision)
	}
	if err == nil {
		_, err = client.Defragment(ctx, urls[0])
	}
	if err == nil {
		_, err = client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	}
	if err != nil {
		t.Fatal(err)
	}
	told(t, a, "")
	if _, err := a.weigh(3); err != nil {
		t.Error(err)
	}

	_, err = client.UserAdd(ctx, "root", "rootpassword")
	for _, f := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := client.RoleAdd(ctx, "root"); return err },
		func(ctx context.Context) error { _, err := client.UserGrantRole(ctx, "root", "root"); return err },
		func(ctx context.Context) error { _, err := client.AuthEnable(ctx); return err },
	} {
		err = errors.Join(err, f(ctx))
	}
	if err != nil {
		t.Fatal(err)
	}
	told(t, a, "etcd: user name is empty")
	root := open(t, config.Fleet{Store: urls, User: "root", Password: "rootpassword"}).(*store).client
	if _, err := root.AuthDisable(ctx); err != nil {
		t.Fatal(err)
	}
	told(t, a, "")
	if _, err := a.weigh(4); err != nil {
		t.Error(err)
	}
}
