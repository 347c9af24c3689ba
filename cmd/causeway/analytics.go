package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"time"

	"causeway/analytics"
	"causeway/analytics/attack"
	"causeway/analytics/collect"
	"causeway/analytics/export/ifindex"
	"causeway/analytics/flow"
	"causeway/analytics/geo"
	"causeway/analytics/graph"
	"causeway/analytics/store"
	"causeway/analytics/store/sqlite"
	"causeway/config"
	"causeway/control/cluster"
	"causeway/control/metrics"
	"causeway/control/node"
	webhook "causeway/control/notify"
	"causeway/pipeline/wire"
)

// openAnalytics makes what the section analytics asks for, of a node that is open; without one there is none, and nil.
func openAnalytics(c *config.Config, n *node.Node, log *slog.Logger) (*analytics.Service, error) {
	a := c.Analytics
	if a == nil {
		return nil, nil
	}
	tokens, certificate, places, err := analyticsFiles(a)
	if err != nil {
		return nil, err
	}
	o := analytics.Options{
		Dir: filepath.Join(node.StateDir(c), "analytics"),
		Place: store.Place{Node: c.Node.Name, DataCenter: c.Node.Datacenter, Region: c.Node.Region,
			City: a.Place.City, Country: a.Place.Country, Geohash: a.Place.Geohash},
		Agent: c.Node.Address,
		Retention: sqlite.Retention{Second: a.Retention.Second, Minute: a.Retention.Minute, Hour: a.Retention.Hour, Samples: a.Retention.Samples,
			Tops:   a.Retention.Tops,
			Health: a.Retention.Hour, Attacks: a.Retention.Hour},
		MaxBytes: a.Disk, ClickHouse: a.ClickHouse.URL, ClickHousePassword: string(a.ClickHouse.Password),
		Tokens: tokens, TLS: certificate, Geo: places, SFlow: a.Export.SFlow, IPFIX: a.Export.IPFIX,
		Keep4: a.Truncate.IPv4, Keep6: a.Truncate.IPv6,
		Engine: n.Engine(), Tunnels: (&tunnelsOf{node: n}).list, Health: func() []collect.Health { return healthOf(n) }, Attack: func(e attack.Event) { tellAttack(n, e) },
		Thresholds: thresholds(a.Attacks), Log: log,
		Shown: func() []graph.Tunnel { return shownTunnels(n) }, Accounts: func() []string { return accountNames(n.Config()) },
	}
	if c := n.Joined(); c != nil {
		o.Nodes = others{c}
	}
	if places != nil {
		log.Info("analytics knows whose addresses are", "as_of", places.Built())
	}
	if a.Listen.IsValid() {
		if o.Listener, err = net.Listen("tcp", a.Listen.String()); err != nil {
			return nil, fmt.Errorf("analytics.listen: %w; `analytics: {listen: ...}` names another address", err)
		}
	}
	s, err := analytics.Open(o)
	if err != nil && o.Listener != nil {
		err = errors.Join(err, o.Listener.Close())
	}
	return s, err
}

// analyticsFiles reads the files that the section names. Its error says all that is wrong with them.
func analyticsFiles(a *config.Analytics) (tokens *graph.Tokens, certificate *analytics.Certificate, places *geo.DB, err error) {
	var errs [3]error
	if a.Tokens != "" {
		if tokens, errs[0] = graph.LoadTokens(a.Tokens); errs[0] != nil {
			errs[0] = fmt.Errorf("analytics.tokens.file: %w", errs[0])
		}
	}
	if a.TLS.Certificate != "" && a.TLS.Key != "" { // of a section with mistakes one may be missing
		certificate, errs[1] = analytics.LoadCertificate(a.TLS.Certificate, a.TLS.Key)
	}
	if a.Geo != (config.Geo{}) {
		places, errs[2] = geo.Open(a.Geo.ASN, a.Geo.Country)
	}
	if err = errors.Join(errs[:]...); err != nil && places != nil {
		places.Close()
		places = nil
	}
	return tokens, certificate, places, err
}

// checkAnalytics reads the files of a section, which may be nil, as the daemon would.
func checkAnalytics(a *config.Analytics) error {
	if a == nil {
		return nil
	}
	_, _, places, err := analyticsFiles(a)
	if places != nil {
		places.Close()
	}
	return err
}

// runAnalytics starts a service, and returns what ends it: the last that was counted is written then. Without a service it does nothing.
func runAnalytics(s *analytics.Service, n *node.Node, log *slog.Logger) (stop func() error) {
	if s == nil {
		return func() error { return nil }
	}
	n.SetAnalytics(func() metrics.Analytics { return metricsOf(s.Stats()) })
	if c := n.Joined(); c != nil {
		c.OnInquiry(s.Responder())
	}
	if at := s.Addr(); at != nil {
		log.Info("analytics can be asked", "listen", at)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() error {
		cancel()
		return errors.Join(<-done, s.Close())
	}
}

// others are the other nodes of a cluster, as analytics asks them.
type others struct{ *cluster.Cluster }

// Others: see fleet.Nodes. Who is refused is none of them. Why one is away does not say for how long: streams send an answer that is another.
func (o others) Others() (live []string, away []store.Missing) {
	for _, v := range o.Nodes() {
		switch v.State {
		case cluster.Live:
			live = append(live, v.Name)
		case cluster.Silent:
			away = append(away, store.Missing{Node: v.Name, Why: "nothing is heard of it"})
		}
	}
	return live, away
}

// metricsOf is what metrics tell of a service.
func metricsOf(s analytics.Stats) metrics.Analytics {
	m := metrics.Analytics{Samples: s.Collect.Samples, Thinned: s.Collect.Thinned, Unwritten: s.Collect.Unwritten, LeftOut: s.Collect.LeftOut, Shift: s.Collect.Shift,
		Attacks: map[string]uint64{}, Active: s.Active, Answered: s.Fleet.Answered, Missed: s.Fleet.Missed}
	if b := s.Buffer; b != nil {
		m.Buffer = &metrics.Buffer{Bytes: b.Buffered, Limit: b.Limit, Sent: b.Sent, Lost: b.Lost, Refused: b.Refused, Away: b.Away}
	}
	for v, n := range s.Attacks {
		m.Attacks[attack.Vector(v).String()] = n
	}
	for _, c := range s.Export.Collectors {
		m.Collectors = append(m.Collectors, metrics.Collector{Protocol: c.Protocol, Address: c.Address, Sent: c.Sent, Failed: c.Failed})
	}
	return m
}

// tellAttack tells the operator's web server that an attack has begun or ended.
func tellAttack(n *node.Node, e attack.Event) {
	state, told := map[attack.Change]string{attack.Started: "started", attack.Ended: "ended"}[e.Change]
	if !told {
		return
	}
	n.TellAttack(noticeOf(&e, state))
}

// noticeOf is what the web server is told of an attack in that state.
func noticeOf(e *attack.Event, state string) webhook.AttackNotice {
	x := webhook.AttackNotice{ID: e.Attack.ID, Account: e.Attack.Account, State: state, Kind: e.Attack.Type, Vector: e.Attack.Vector,
		Destination: e.Attack.Dst, Rate: e.Rate, Packets: e.Attack.Packets, Bits: e.Attack.Bits, Sources: sourcesOf(e)}
	for _, h := range e.Headers {
		x.Samples = append(x.Samples, hex.EncodeToString(h))
	}
	return x
}

// sourcesOf are the addresses that attack.
func sourcesOf(e *attack.Event) (out []string) {
	if e.Vector == attack.Scan { // the event has the targets
		return []string{e.Attack.Src}
	}
	for _, s := range e.Sources {
		out = append(out, s.Key.String())
	}
	return out
}

// vectorName is a vector as the configuration file spells it.
func vectorName(v attack.Vector) string {
	return strings.ToLower(strings.NewReplacer(" ", "_", "-", "_").Replace(v.String()))
}

// thresholds are the rates at which something is an attack: those of the file, and the others as they are by themselves.
func thresholds(given map[string]int64) [attack.Vectors]float64 {
	all := attack.DefaultConfig().Thresholds
	for v := range attack.Vectors {
		if n, ok := given[vectorName(v)]; ok {
			all[v] = float64(n)
		}
	}
	return all
}

// tunnelsOf lists a node's tunnels for analytics: made anew when the configuration is another.
type tunnelsOf struct {
	node *node.Node
	of   *config.Config
	made []analytics.Tunnel
}

func (t *tunnelsOf) list() []analytics.Tunnel {
	c := t.node.Config()
	if c == t.of {
		return t.made
	}
	t.of, t.made = c, nil
	for _, x := range c.Tunnels {
		number, ok := t.node.Engine().TunnelID(x.Name)
		if !ok { // the workers get it in a moment
			t.of = nil
			continue
		}
		t.made = append(t.made, analytics.Tunnel{Tunnel: collect.Tunnel{Tunnel: tunnelNamed(x), Number: number}, Interface: interfaceOf(x)})
	}
	return t.made
}

// tunnelID is the same on every node, and after a restart.
func tunnelID(account, name string) string {
	id := sha256.Sum256([]byte(account + "\x00" + name))
	return hex.EncodeToString(id[:16])
}

// tunnelKind is what the product calls a type of tunnels.
func tunnelKind(word string) string {
	if word == config.IPsecESP.String() {
		return "IPSec"
	}
	return "GRE"
}

// tunnelNamed is a tunnel as rows name it.
func tunnelNamed(t config.Tunnel) *flow.Tunnel {
	return &flow.Tunnel{ID: tunnelID(t.Account, t.Name), Name: t.Name, Account: t.Account, Kind: tunnelKind(t.Type.String())}
}

// interfaceOf is a tunnel as collectors see it.
func interfaceOf(t config.Tunnel) ifindex.Interface {
	i := ifindex.Interface{Local: t.Endpoint, Remote: t.CustomerEndpoint, Protocol: wire.ProtoGRE, Key: t.Key, HasKey: t.HasKey,
		Overhead: t.Overhead()}
	if t.Type == config.IPsecESP {
		i.Protocol = wire.ProtoESP
	}
	return i
}

// healthOf is what probes have found.
func healthOf(n *node.Node) (out []collect.Health) {
	remote := map[string]string{}
	for _, t := range n.Tunnels() {
		remote[t.Name] = t.CustomerEndpoint
	}
	for _, h := range n.Health() {
		out = append(out, collect.Health{Tunnel: h.Tunnel, Remote: remote[h.Tunnel], State: h.State, Answered: h.Answered, Lost: h.Lost,
			RTT: time.Duration(h.RTT * float64(time.Second))})
	}
	return out
}
