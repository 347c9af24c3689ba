package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"causeway/config"
	"causeway/control/api"
	"causeway/control/cluster"
	"causeway/control/cluster/engine"
	"causeway/control/cluster/seal"
	"causeway/control/pmtu"
)

// Where a node keeps its identity and, if it is a hub, the store, in node.state_dir.
const (
	identityFile = "identity.json"
	storeDir     = "cluster"
)

// A store is what a node has by its engine whether there are other nodes or not: the document that is applied, and who works with it.
// *cluster.Cluster is one, and beyond that what nodes do for each other.
type store interface {
	Run(ctx context.Context) error
	Document() cluster.Document
	SetDocument(cluster.Document)
	SetRuns(cluster.Runs)
	Apply(ctx context.Context, body []byte) (serial uint64, err error)
	Nodes() []cluster.NodeView
	Status() cluster.Status
	Close()
}

// openCluster makes this node's part of the cluster. The engine starts with it.
func (n *Node) openCluster(c *config.Config) error {
	o, err := n.clusterOptions(c)
	if err != nil {
		return err
	}
	n.children.clustered = true
	n.cluster = cluster.New(o, n.children)
	n.store = n.cluster
	n.store.SetDocument(n.fleet.last)
	n.tellFleet()
	n.warnOfEnd(time.Now())
	return n.cluster.Open()
}

func (n *Node) clusterOptions(c *config.Config) (o cluster.Options, err error) {
	if err := n.takeState(); err != nil {
		return o, err
	}
	if o.Identity, err = identityOf(&n.state); err != nil {
		return o, err
	}
	if o.Roster, err = loadRoster(c); err != nil {
		return o, err
	}
	if own := o.Identity.Public(); !o.Roster.Admits(c.Node.Name, own) {
		return o, notAdmitted(c, own)
	}
	connections, err := n.certificate.tls(c.Cluster.TLS)
	if err != nil {
		return o, err
	}
	o.Engine = engine.Options{Name: c.Node.Name, TLS: connections, Hub: c.Cluster.Hub, Dir: filepath.Join(n.state.path, storeDir), Log: n.log}
	o.Engine.Between = c.Cluster.Share.Listen
	if o.Engine.Servers, err = urlsOf(c.Cluster.Servers); err != nil {
		return o, fmt.Errorf("cluster.servers: %w", err)
	}
	if o.Engine.Others, err = urlsOf(c.Cluster.Share.Hubs); err != nil {
		return o, fmt.Errorf("cluster.hub.share.hubs: %w", err)
	}
	if f := c.Cluster.NATS; f != nil {
		o.Engine.Foreign = &engine.Foreign{Domain: f.Domain, Replicas: f.Replicas, Credentials: f.Credentials}
	}
	o.Log, o.OnWriter, o.NotReady = n.log, n.sas.number, n.NotReady
	o.OnDocument = n.hearDocument
	o.OnHealth = func(text []byte) error { return n.prober.Hear(text) }
	o.OnPath = func(p pmtu.Path) { n.learned.Hear(p, time.Now()) }
	o.Direct = func(node string, message []byte) bool { return n.ways.forward(node, message) }
	o.Tell = func(node string, message []byte) bool { return n.ways.tell(node, message) }
	o.Local = c.Cluster.Away == config.AwayDatacenter
	o.Member = cluster.Member{Name: c.Node.Name, Address: c.Node.Address, Datacenter: c.Node.Datacenter, Region: c.Node.Region, Release: n.opts.Version, Messages: true}
	if c.Cluster.Hub.IsValid() && len(c.Cluster.Servers)+len(c.Cluster.Share.Hubs) == 0 {
		o.Member.Yields = cluster.StoreAlone
	}
	return o, nil
}

// takeState takes the state directory for a node in a cluster.
func (n *Node) takeState() error {
	return n.takeStateFor("a node in a cluster keeps its identity there")
}

// takeStateFor takes the state directory, and says what for if that is not possible.
func (n *Node) takeStateFor(what string) error {
	err := n.state.take()
	switch {
	case errors.Is(err, ErrStateInUse), errors.Is(err, errStateOpen): // which say what to do
		return err
	case err != nil:
		return fmt.Errorf("node.state_dir: %s: %w; %s", what, err, advice(err))
	}
	return nil
}

func urlsOf(list []string) (out []*url.URL, err error) {
	for _, s := range list {
		u, err := url.Parse(s)
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}

// identityOf reads the node's identity, or makes one the first time. The directory must have been taken.
func identityOf(dir *stateDir) (*seal.Identity, error) {
	b, err := dir.read(identityFile)
	if errors.Is(err, fs.ErrNotExist) {
		return newIdentity(dir)
	}
	if err != nil {
		return nil, err
	}
	defer clear(b)
	i, err := seal.ParseIdentity(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; remove the file and the node gets another one, which has to be admitted anew", dir.file(identityFile), err)
	}
	return i, nil
}

func newIdentity(dir *stateDir) (*seal.Identity, error) {
	i, err := seal.NewIdentity()
	if err != nil {
		return nil, err
	}
	b, err := i.Marshal()
	if err != nil {
		return nil, err
	}
	defer clear(b)
	if err := dir.write(identityFile, b); err != nil {
		return nil, fmt.Errorf("the node's identity is not kept: %w; %s", err, advice(err))
	}
	return i, nil
}

// Fingerprint is the identity of a node with a state directory, as rosters have it. It is made if there is none yet.
func Fingerprint(dir string) (string, error) {
	d := &stateDir{path: dir}
	err := d.take()
	if errors.Is(err, ErrStateInUse) { // by the daemon, which has made it
		d.root, err = os.OpenRoot(dir)
	}
	if err != nil {
		return "", err
	}
	defer d.close()
	i, err := identityOf(d)
	if err != nil {
		return "", err
	}
	return i.Public().Fingerprint(), nil
}

func loadRoster(c *config.Config) (seal.Roster, error) {
	b, err := os.ReadFile(c.Cluster.Roster)
	if err != nil {
		return nil, fmt.Errorf("cluster.roster: %w", err)
	}
	r, err := seal.ParseRoster(string(b))
	if err != nil {
		return nil, fmt.Errorf("%s:%w", c.Cluster.Roster, err)
	}
	return r, nil
}

// An admission is what a reload reads anew of who is in the cluster: who is admitted, and by what this node shows that it is.
type admission struct {
	roster      seal.Roster
	certificate *tls.Certificate
}

// admissionOf reads both; nothing on a node that is alone.
func (n *Node) admissionOf(c *config.Config) (a admission, err error) {
	if n.cluster == nil {
		return a, nil
	}
	if a.roster, err = loadRoster(c); err != nil {
		return a, err
	}
	a.certificate, err = loadCertificate(c.Cluster.TLS)
	return a, err
}

// startCluster joins the others. What it began ends when ctx is done, and no earlier: while IKE says goodbye it tells of it.
func (n *Node) startCluster(ctx context.Context, g *group) {
	if n.cluster != nil {
		n.startStore(ctx, g)
		g.start("traffic between nodes", func() error { n.followPeers(ctx); return nil })
		g.start("messages between nodes", func() error { n.hearNodes(ctx); return nil })
	}
}

// startStore has what is applied taken over.
func (n *Node) startStore(ctx context.Context, g *group) {
	g.start("engine", func() error { return n.store.Run(ctx) })
	g.start("configuration of the fleet", func() error { n.followFleet(ctx); return nil })
}

// Nodes shows the nodes of the cluster, or the one that is alone.
func (n *Node) Nodes() []api.ClusterNode {
	list := []api.ClusterNode{}
	for _, v := range n.store.Nodes() {
		if n.cluster == nil {
			v.SAs = n.children.count()
		}
		x := api.ClusterNode{Name: v.Name, State: string(v.State), Why: v.Why, Datacenter: v.Datacenter, Region: v.Region, Release: v.Release,
			Writer: v.Writer, Epoch: v.Epoch, SAs: v.SAs, Agrees: v.Agrees, NotReady: v.NotReady, HeardAgo: v.Heard.Seconds()}
		if v.Address.IsValid() {
			x.Address = v.Address.String()
		}
		list = append(list, x)
	}
	return list
}

// Cluster shows how the node stands in the cluster.
func (n *Node) Cluster() api.Cluster {
	if n.cluster == nil {
		return n.showAlone()
	}
	v := n.cluster.Status()
	x := api.Cluster{State: "joined", Why: v.Trouble, ClockAhead: v.ClockAhead.Seconds(), Local: v.Local, NotTold: v.NotTold, Writer: v.Writer.ID, Numbered: v.Numbered, Generation: fmt.Sprintf("%016x", v.Writer.Generation), Epoch: v.Epoch, Nodes: v.Nodes, SAs: v.SAs,
		Digest: v.Digest, SPIsReserved: v.Stock, IKESAs: v.IKESAs, IKEHere: v.IKEHere, IKEVacant: v.IKEVacant,
		OwnedHere: v.OwnedHere, OwnedThere: v.OwnedThere, Ownerless: v.Ownerless, Unconfirmed: int(n.owning.unconfirmed.Load()), Compared: v.Compared.Seconds(), NotStored: v.NotStored, NotInstalled: v.NotInstalled, NotOpened: v.NotOpened, LateAcks: v.LateAcks, Refused: v.Refused}
	x.Replicas = []api.StoreReplica{}
	for _, r := range v.Replicas {
		x.Replicas = append(x.Replicas, api.StoreReplica{Name: r.Name, Leads: r.Leads, Current: r.Current, Offline: r.Offline, Lag: r.Lag})
	}
	if v.Trouble != "" {
		x.State = "away"
	}
	return x
}

// clusterReady says why the node cannot do its part yet.
func (n *Node) clusterReady() []string {
	if n.cluster == nil {
		return n.aloneReady()
	}
	if why := append(n.cluster.NotReady(), n.fleetReady()...); len(why) > 0 {
		return why
	}
	if !n.owning.settled.Load() {
		return []string{"the nodes that encrypt for tunnels with replay_protection are not reached yet"}
	}
	return nil
}

// leaveTime is how long a node that stops tells the cluster what it has not told yet.
const leaveTime = time.Second

// leaveCluster returns when the store has all that this node has to say, or soon. IKE has stopped.
func (n *Node) leaveCluster() {
	if n.cluster == nil {
		return
	}
	n.prober.Leave()
	for end := time.Now().Add(leaveTime); n.cluster.Status().NotStored > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	n.cluster.Leave(leaveTime)
}
