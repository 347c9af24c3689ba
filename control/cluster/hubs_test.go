package cluster

import (
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"causeway/control/cluster/engine"
	"causeway/control/ike"
	"causeway/control/ike/sa"
)

// newHubs is a bed of three hubs with the store in common, hub1 to hub3, and of nodes that know all of them.
func newHubs(t *testing.T, nodes ...string) *bed {
	t.Helper()
	b := newBed(t, append([]string{"hub1", "hub2", "hub3"}, nodes...)...)
	b.patience = time.Minute // an election takes up to 9 s, and a slow machine may need several
	hubs, between := map[string]netip.AddrPort{}, map[string]netip.AddrPort{}
	var servers []*url.URL
	for _, name := range []string{"hub1", "hub2", "hub3"} {
		hubs[name], between[name] = freePort(t), freePort(t)
		servers = append(servers, leafURL(t, hubs[name]))
	}
	b.engine = func(o *engine.Options) {
		if o.Hub = hubs[o.Name]; !o.Hub.IsValid() {
			o.Servers = servers
			return
		}
		o.Dir, o.Between = b.dirOf(o.Name), between[o.Name]
		for name, a := range between {
			if name != o.Name {
				u, err := url.Parse("nats-route://" + a.String())
				if err != nil {
					t.Fatal(err)
				}
				o.Others = append(o.Others, u)
			}
		}
	}
	return b
}

func (b *bed) dirOf(name string) string { return filepath.Join(b.dir, name) }

// whole is how many replicas have all that there is.
func whole(list []Replica) (n int) {
	for _, r := range list {
		if r.Current && !r.Offline && r.Lag == 0 {
			n++
		}
	}
	return n
}

// lives checks that the store takes what nodes write, and that all of them have it.
func lives(t *testing.T, when string, nodes ...*node) {
	t.Helper()
	begin, x := time.Now(), nodes[0]
	var c *sa.Child
	x.eventually(when+": able to store a pair", func() bool { // hubs elect who leads, and until then nothing is stored: routers try again
		spi, err := x.Shared().ReserveSPI()
		if err != nil {
			return false
		}
		c = x.child(spi)
		return x.Shared().Install(c) == nil
	})
	s := ike.Stored{Tunnel: "cust-a", Established: begin, State: fmt.Appendf(nil, "%q", when)}
	x.eventually(when+": able to store an IKE SA", func() bool {
		s.SPI = x.Fleet().SPI()
		return <-x.ike.write(s, 0) == nil
	})
	stored := time.Since(begin)
	for _, n := range nodes {
		n.eventually(when+": with the pair", func() bool { return n.plane.child(c.SPIIn) != nil })
		n.eventually(when+": with the IKE SA", func() bool { return n.state(s.SPI) == fmt.Sprintf("%q", when) })
	}
	t.Logf("%s: stored after %v, all have it after %v", when, stored.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
}

// Three hubs are one store: one of them may die, whichever it is, and lose its disk. Without two of them nothing is stored, and
// everything heals.
func TestThreeHubs(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newHubs(t, "y", "z")
	hubs := map[string]*node{}
	for _, name := range []string{"hub1", "hub2", "hub3"} {
		hubs[name] = b.start(name)
	}
	y, z := b.start("y"), b.start("z")
	all := func() []*node { return []*node{y, z, hubs["hub1"], hubs["hub2"], hubs["hub3"]} }
	for _, n := range all() {
		n.joined().sees(4)
	}
	lives(t, "all are there", all()...)
	for _, name := range []string{"hub1", "hub2", "hub3"} { // one of them leads
		begin := time.Now()
		hubs[name].stop()
		if name == "hub2" {
			if err := os.RemoveAll(b.dirOf(name)); err != nil {
				t.Fatal(err)
			}
		}
		var left []*node
		for _, n := range all() {
			if n.name != name {
				left = append(left, n.joined())
			}
		}
		z.eventually("seeing that a replica is missing", func() bool { return whole(z.Status().Replicas) == 2 })
		t.Logf("%s is dead: the others have joined after %v", name, time.Since(begin).Round(time.Millisecond))
		lives(t, name+" is dead", left...)
		hubs[name] = b.start(name).joined()
		begin = time.Now()
		z.eventually("seeing three replicas that have all", func() bool { return whole(z.Status().Replicas) == 3 })
		t.Logf("%s has all that the others have after %v", name, time.Since(begin).Round(time.Millisecond))
		lives(t, name+" is there again", all()...)
	}
	spi, err := y.Shared().ReserveSPI()
	if err != nil {
		t.Fatal(err)
	}
	hubs["hub1"].stop()
	hubs["hub2"].stop()
	for _, n := range []*node{y, z} {
		n.eventually("away without a majority, at the hub that is left", func() bool { return n.Status().Trouble != "" && n.engine.Link() != 0 })
	}
	agreed := y.child(spi)
	agreed.Agreed = true
	if err := y.Shared().Install(agreed); err != nil {
		t.Errorf("a pair that the peer has is given up: %v", err)
	}
	z.eventually("with a pair that no store has", func() bool { return z.plane.child(spi) != nil })
	hubs["hub1"] = b.start("hub1")
	for _, n := range []*node{y, z, hubs["hub1"], hubs["hub3"]} {
		n.joined()
	}
	lives(t, "two are there again", y, z, hubs["hub1"], hubs["hub3"])
}

// A relay serves the nodes of its region, and has no store: what they do is known to all, and while the way to the hub is cut, they at
// least hear each other.
func TestRelay(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "relay", "y", "z")
	relay := freePort(t)
	p := newProxy(t, b.hub)
	b.engine = func(o *engine.Options) {
		switch o.Name {
		case "hub":
			o.Hub, o.Dir = b.hub, b.dir
		case "relay":
			o.Hub, o.Servers, o.Dir = relay, []*url.URL{leafURL(t, p.addr)}, b.dirOf("relay")
		default:
			o.Servers = []*url.URL{leafURL(t, relay)}
		}
	}
	nodes := map[string]*node{}
	for _, name := range []string{"hub", "relay", "y", "z"} {
		nodes[name] = b.start(name)
	}
	all := []*node{nodes["y"], nodes["z"], nodes["relay"], nodes["hub"]}
	for _, n := range all {
		n.joined().sees(3)
	}
	lives(t, "all are there", all...)
	if _, err := os.Stat(b.dirOf("relay")); err == nil {
		t.Error("the relay has a store")
	}
	p.set(true)
	nodes["relay"].eventually("away", func() bool { return nodes["relay"].Status().Trouble != "" })
	nodes["z"].eventually("away", func() bool { return nodes["z"].Status().Trouble != "" })
	p.set(false)
	for _, n := range all {
		n.joined()
	}
	lives(t, "the way to the hub is there again", all...)
	nodes["relay"].stop()
	nodes["z"].eventually("away", func() bool { return nodes["z"].Status().Trouble != "" })
	nodes["relay"] = b.start("relay").joined()
	all[2] = nodes["relay"]
	for _, n := range all {
		n.joined()
	}
	lives(t, "the relay is there again", all...)
}

// Nodes that join somebody's NATS deployment: a server that has nothing of ours, and that may want credentials of its own.
func TestForeignDeployment(t *testing.T) {
	t.Parallel() // it waits more than it works
	for _, guarded := range []bool{false, true} {
		const domain = "theirs"
		b := newBed(t, "y", "z", "stranger")
		o := &server.Options{ServerName: "theirs", DontListen: true, NoSigs: true, JetStream: true, JetStreamDomain: domain, StoreDir: b.dirOf("theirs"), MaxPayload: 1 << 20,
			LeafNode: server.LeafNodeOpts{Host: "127.0.0.1", Port: int(b.hub.Port())}}
		foreign := &engine.Foreign{Domain: domain, Replicas: 1}
		if guarded {
			foreign.Credentials = guard(t, o)
		}
		s, err := server.NewServer(o)
		if err != nil {
			t.Fatal(err)
		}
		go s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		b.engine = func(o *engine.Options) {
			f := *foreign
			if o.Name == "stranger" {
				f.Credentials = ""
			}
			o.Servers, o.Foreign = []*url.URL{leafURL(t, b.hub)}, &f
		}
		y, z := b.start("y"), b.start("z")
		lives(t, fmt.Sprintf("somebody's deployment, guarded %v", guarded), y.joined().sees(1), z.joined().sees(1))
		if stranger := b.start("stranger"); guarded {
			time.Sleep(2 * time.Second)
			if stranger.Status().Trouble == "" {
				t.Error("a node without credentials is let in")
			}
		}
	}
}

// guard has a server want credentials, and returns the path of a file with good ones.
func guard(t *testing.T, o *server.Options) (path string) {
	t.Helper()
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pair := func(create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		t.Helper()
		kp, err := create()
		fail(err)
		public, err := kp.PublicKey()
		fail(err)
		return kp, public
	}
	operator, operatorKey := pair(nkeys.CreateOperator)
	account, accountKey := pair(nkeys.CreateAccount)
	_, systemKey := pair(nkeys.CreateAccount)
	user, userKey := pair(nkeys.CreateUser)
	resolver := &server.MemAccResolver{}
	for _, key := range []string{accountKey, systemKey} {
		claims := jwt.NewAccountClaims(key)
		if key == accountKey {
			claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
		}
		text, err := claims.Encode(operator)
		fail(err)
		fail(resolver.Store(key, text))
	}
	o.TrustedKeys, o.AccountResolver, o.SystemAccount = []string{operatorKey}, resolver, systemKey
	text, err := jwt.NewUserClaims(userKey).Encode(account)
	fail(err)
	seed, err := user.Seed()
	fail(err)
	credentials, err := jwt.FormatUserConfig(text, seed)
	fail(err)
	path = filepath.Join(t.TempDir(), "nats.creds")
	fail(os.WriteFile(path, credentials, 0o600))
	return path
}

// A watch that nothing comes from any more is noticed, and meanwhile nobody is taken for gone.
func TestStalledWatch(t *testing.T) {
	for name, former := range map[string]bool{"beats": false, "records alone": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits more than it works
			stalledWatch(t, former)
		})
	}
}

func stalledWatch(t *testing.T, former bool) {
	b := newBed(t, "hub", "y", "z")
	b.former = former
	hub, y, z := b.start("hub").joined(), b.start("y").joined(), b.start("z").joined()
	for _, n := range []*node{hub, y, z} {
		n.sees(2)
	}
	s := y.establish("cust-a", `"of y"`)
	z.eventually("knowing it", func() bool { return z.state(s.SPI) == `"of y"` })
	// What the store tells z is removed under its hands: as when the replica that it came from is gone.
	stream, err := hub.engine.Store.Stream(t.Context(), "KV_"+bucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	for name := range stream.ConsumerNames(t.Context()).Name() {
		if err := stream.DeleteConsumer(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(leaseTime + 2*time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, n := range []*node{hub, y, z} {
			if len(n.others()) != 2 {
				t.Fatalf("%s takes others for gone: %v", n.name, n.others())
			}
		}
	}
	if got := y.ike.here(); len(got) != 1 {
		t.Errorf("y has %d IKE SAs", len(got))
	}
	z.eventually("hearing again", func() bool { echo := z.echo.Load(); return echo != nil && time.Since(*echo) < echoTime })
}
