// Package api is the daemon's interface for its operator: HTTP with JSON over a Unix socket that only the daemon's
// user may open. `causeway show` and `causeway reload` are its clients.
//
//	GET  /v1/tunnels     []Tunnel       GET  /v1/drops    []Drop
//	GET  /v1/routes      []Route        GET  /v1/ports    []Port
//	GET  /v1/neighbours  []Neighbour    GET  /v1/status   Status
//	GET  /v1/workers     Workers        POST /v1/reload   Reload
//	GET  /v1/nodes       []ClusterNode  GET  /v1/cluster  Cluster
//	GET  /v1/health      []Health       POST /v1/capture  CaptureEvent, one a line
//
// The field names are a contract: none changes its meaning or goes away. Counters count since the daemon's start (a
// tunnel's since it was added), sizes are in bytes, times in seconds. An error is {"error": "..."} with a status
// other than 200.
package api

import "time"

// A Tunnel is one tunnel with what is known of it now. Byte counts are those of inner packets.
type Tunnel struct {
	Name              string   `json:"name"`
	Account           string   `json:"account"`
	Type              string   `json:"type"` // gre
	Endpoint          string   `json:"endpoint"`
	CustomerEndpoint  string   `json:"customer_endpoint"`
	InterfaceAddress  string   `json:"interface_address"`
	InterfaceAddress6 string   `json:"interface_address6,omitempty"`
	Prefixes          []string `json:"prefixes"`

	MTU          int `json:"mtu"`                // configured
	EffectiveMTU int `json:"effective_mtu"`      // lower where the path to the customer is known to be narrower
	PathMTU      int `json:"path_mtu,omitempty"` // learned, as an inner size
	MSS4         int `json:"mss4"`               // that TCP SYNs are clamped to; 0: left alone
	MSS6         int `json:"mss6"`

	RXPackets uint64 `json:"rx_packets"` // customer -> node
	RXBytes   uint64 `json:"rx_bytes"`
	RXDrops   uint64 `json:"rx_drops"`
	TXPackets uint64 `json:"tx_packets"` // node -> customer
	TXBytes   uint64 `json:"tx_bytes"`
	TXDrops   uint64 `json:"tx_drops"`

	Route      string `json:"route"`       // where the customer endpoint leads, in words
	RouteState string `json:"route_state"` // ok, unresolved, none

	KernelInterface *KernelInterface `json:"kernel_interface,omitempty"`
}

// A KernelInterface is the device that the host has for a tunnel.
type KernelInterface struct {
	Name       string `json:"name"`
	Node       string `json:"node"` // that speaks with the customer's router; "": nobody yet
	MTU        int    `json:"mtu"`
	Learned    int    `json:"routes_learned"` // prefixes, of the account's table
	ToKernel   uint64 `json:"to_kernel_packets"`
	FromKernel uint64 `json:"from_kernel_packets"`
	Refused    uint64 `json:"refused_packets"`   // by the kernel
	Unsent     uint64 `json:"unsent_packets"`    // of the kernel's: another node speaks, or there was no room
	PassedOn   uint64 `json:"passed_on_packets"` // out of the tunnel, to the node that speaks
	Lost       uint64 `json:"lost_packets"`      // out of the tunnel: nobody speaks, or that node is not reached
	Problem    string `json:"problem,omitempty"` // why it is not there, or does nothing
}

// A Route is one path of one prefix.
type Route struct {
	Prefix   string `json:"prefix"`
	Account  string `json:"account"`  // "" for the Internet table
	Source   string `json:"source"`   // local, neighbour, interface, static, learned, kernel
	Kind     string `json:"kind"`     // what becomes of a packet: neighbour, tunnel, group, glean, kernel, blackhole...
	NextHop  string `json:"next_hop"` // in words
	Priority uint32 `json:"priority"` // the lower wins, with the penalty added
	Penalty  uint32 `json:"penalty"`  // for the state of the tunnel
	Weight   int    `json:"weight"`
	Active   bool   `json:"active"` // it is, or is one of, the best
}

// A Health is what the probes of a tunnel say. Times ago are -1 for what has not happened.
type Health struct {
	Tunnel     string  `json:"tunnel"`
	State      string  `json:"state"` // healthy, degraded, down
	Why        string  `json:"why"`   // it is
	Since      float64 `json:"since_seconds"`
	Leg        string  `json:"leg"`     // while probes are lost: which part of the way is broken
	Penalty    uint32  `json:"penalty"` // that its routes are worse by
	Type       string  `json:"type"`    // reply, request
	Direction  string  `json:"direction"`
	Source     string  `json:"source"`
	Target     string  `json:"target"`
	Interval   float64 `json:"interval_seconds"` // between probes of the data center's nodes together
	Every      float64 `json:"every_seconds"`    // between those of this node
	Probes     uint64  `json:"probes"`
	Answered   uint64  `json:"answered"`
	Lost       uint64  `json:"lost"`
	RTT        float64 `json:"rtt_seconds"` // smoothed; 0: no answer yet
	LastAnswer float64 `json:"last_answer_ago_seconds"`
	LastLoss   float64 `json:"last_loss_ago_seconds"`

	BFD *HealthBFD `json:"bfd"` // null: it is not spoken

	Fleet       string             `json:"fleet"`       // the state by all data centers
	Datacenters []HealthDatacenter `json:"datacenters"` // this node's first
}

// A HealthEvent is a change of a tunnel's state, as this node found it.
type HealthEvent struct {
	Time   time.Time `json:"time"`
	Tunnel string    `json:"tunnel"`
	Was    string    `json:"was"`
	State  string    `json:"state"`
	Why    string    `json:"why"`
	Leg    string    `json:"leg"`
}

// A HealthBFD is a session of BFD with a tunnel's router. Of one that another node has only Node is there.
type HealthBFD struct {
	Node      string  `json:"node"`         // that has the session; in another data center, one that knows which does
	State     string  `json:"state"`        // down, init, up, admin-down
	Remote    string  `json:"remote_state"` // as the router says
	Why       string  `json:"why_down"`     // it went down the last time
	RemoteWhy string  `json:"remote_why_down"`
	Since     float64 `json:"since_seconds"`
	Changes   uint64  `json:"changes"`
	Detection float64 `json:"detection_seconds"` // it is down when nothing comes for so long
	Sent      uint64  `json:"sent"`
	Received  uint64  `json:"received"`
	Wrong     uint64  `json:"wrong"` // packets that were discarded
	WhyWrong  string  `json:"why_wrong"`
}

// A HealthDatacenter is how the nodes of a data center find a tunnel.
type HealthDatacenter struct {
	Datacenter string   `json:"datacenter"`
	State      string   `json:"state"`
	Healthy    int      `json:"healthy"` // nodes that find it so
	Degraded   int      `json:"degraded"`
	Down       int      `json:"down"`
	RTT        float64  `json:"rtt_seconds"`
	Answered   uint64   `json:"answered"` // probes of the data center, since the node that tells it probes the tunnel so
	Lost       uint64   `json:"lost"`
	Disagree   []string `json:"disagree"` // nodes that do not find it so; of this node's data center alone
}

// A Neighbour is a host on a link.
type Neighbour struct {
	Interface string `json:"interface"`
	Address   string `json:"address"`
	MAC       string `json:"mac"`   // "" while it is not known
	State     string `json:"state"` // the kernel's
	Usable    bool   `json:"usable"`
	Used      bool   `json:"used"`    // by a route or a tunnel
	Managed   bool   `json:"managed"` // the kernel keeps it fresh
}

// Workers is every worker, and the account of all frames.
type Workers struct {
	Workers []Worker `json:"workers"`
	Total   Frames   `json:"total"`
}

// A Worker is one worker.
type Worker struct {
	Worker      int      `json:"worker"`
	CPU         int      `json:"cpu"`
	Queues      []string `json:"queues"` // port/queue
	LastPollAgo float64  `json:"last_poll_ago_seconds"`
	MaxPollGap  float64  `json:"max_poll_gap_seconds"`
	Batches     uint64   `json:"batches"`
	EmptyPolls  uint64   `json:"empty_polls"`
	Sleeps      uint64   `json:"sleeps"`
	Frames      Frames   `json:"frames"`
}

// Frames is the account of frames: at rest in equals out, where
// in = received + originated + fragments and out = forwarded + delivered + punted + dropped + joined + held.
type Frames struct {
	Received   uint64 `json:"received"`
	Originated uint64 `json:"originated"`
	Fragments  uint64 `json:"fragments"`
	Forwarded  uint64 `json:"forwarded"`
	Delivered  uint64 `json:"delivered"`
	Punted     uint64 `json:"punted"`
	Dropped    uint64 `json:"dropped"`
	Joined     uint64 `json:"joined"`
	Held       uint64 `json:"held"`
	ToOwner    uint64 `json:"to_owner"`   // of them, packets forwarded to the node that encrypts for their tunnel
	FromNodes  uint64 `json:"from_nodes"` // of them, packets that other nodes have forwarded here
	In         uint64 `json:"in"`
	Out        uint64 `json:"out"`
}

// A Drop is one drop reason and its count.
type Drop struct {
	Reason   string `json:"reason"`
	Stage    string `json:"stage"`
	Packets  uint64 `json:"packets"`
	Sentence string `json:"sentence"`
	RFC      string `json:"rfc,omitempty"`
}

// An SA is one security association. It says nothing about keys.
type SA struct {
	Tunnel       string `json:"tunnel"`
	Direction    string `json:"direction"` // in: from the customer, out: toward it
	SPI          uint32 `json:"spi"`
	Encryption   string `json:"encryption"`
	KeyID        string `json:"key_id"` // the first 8 digits of the key's SHA-256: both ends can compare them
	ESN          bool   `json:"esn"`
	UDPEncap     bool   `json:"udp_encap"`
	Worker       int    `json:"worker"`        // its owner
	ReplayWindow int    `json:"replay_window"` // in
	Sequence     uint64 `json:"sequence"`      // out: the next number; in: the highest that was received
	SoftExpired  bool   `json:"soft_expired"`

	Packets uint64            `json:"packets"` // sent, or received and authentic
	Bytes   uint64            `json:"bytes"`   // of inner packets
	Refused map[string]uint64 `json:"refused"` // packets by drop reason
}

// An IKE is what IKE does for one tunnel.
type IKE struct {
	Tunnel     string  `json:"tunnel"`
	Failure    string  `json:"failure"` // what went wrong since a pair was made the last time; empty: nothing
	FailureAge float64 `json:"failure_age_seconds"`
	SAs        []IKESA `json:"sas"` // of this node, oldest first

	Elsewhere []IKEElsewhere `json:"elsewhere"` // IKE SAs of other nodes of the cluster
}

// Rebalanced is what moved when flows were to go where the weights of routes say.
type Rebalanced struct {
	Parts int `json:"parts_moved"` // of 256 in each group of routes with one priority
}

// Drained is how a node was drained.
type Drained struct {
	Waited float64 `json:"waited_seconds"`
	Before float64 `json:"packets_per_second_before"`
	Left   float64 `json:"packets_per_second_left"` // in the last tenth of a second
}

// An IKEElsewhere is an IKE SA that another node has.
type IKEElsewhere struct {
	SPI  string `json:"spi"` // ours, 16 hexadecimal digits
	Node string `json:"node"`
	Gone bool   `json:"gone"` // the node is: another one takes the SA over soon
}

// An IKESA is a security association of IKE, with the pairs of ESP associations that it has made.
type IKESA struct {
	SPIInitiator string    `json:"spi_initiator"` // 16 hexadecimal digits
	SPIResponder string    `json:"spi_responder"`
	Role         string    `json:"role"`  // initiator or responder
	State        string    `json:"state"` // opening and proving (of what we begin), established, replaced, deleting
	Suite        string    `json:"suite"` // in strongSwan's words
	Local        string    `json:"local"` // address and port
	Remote       string    `json:"remote"`
	LocalID      string    `json:"local_id"`
	RemoteID     string    `json:"remote_id"`
	NATLocal     bool      `json:"nat_local"` // we are behind a NAT
	NATRemote    bool      `json:"nat_remote"`
	Age          float64   `json:"age_seconds"`
	RekeyIn      float64   `json:"rekey_in_seconds"`
	Children     []IKEPair `json:"children"`
}

// An IKEPair is a pair of ESP associations; SA has more of each.
type IKEPair struct {
	SPIIn   uint32  `json:"spi_in"`
	SPIOut  uint32  `json:"spi_out"`
	Suite   string  `json:"suite"`
	Local   string  `json:"local"`  // selectors: what is behind us
	Remote  string  `json:"remote"` // and behind the customer
	State   string  `json:"state"`  // installed, new, rekeying, replaced, deleting
	Age     float64 `json:"age_seconds"`
	RekeyIn float64 `json:"rekey_in_seconds"`
}

// A KeyFile is where the keys of a tunnel are written for a while. No answer has keys themselves.
type KeyFile struct {
	Path string `json:"path"`
}

// A Port is one interface that the workers own.
type Port struct {
	Name     string            `json:"name"`
	Ifindex  int               `json:"ifindex"`
	Driver   string            `json:"driver"`
	MTU      int               `json:"mtu"`       // as the kernel has it now
	MTULimit int               `json:"mtu_limit"` // above it packets do not fit a frame
	Mode     string            `json:"mode"`      // zero-copy, copy, generic
	Fallback string            `json:"fallback,omitempty"`
	Problem  string            `json:"problem,omitempty"` // and what to do
	Queues   []Queue           `json:"queues"`
	Steered  map[string]uint64 `json:"steered"` // packets by class of the steering program
}

// A Queue is one queue of a port with its socket's counters and ring levels.
type Queue struct {
	Queue       int    `json:"queue"`
	Worker      int    `json:"worker"`
	BusyPoll    bool   `json:"busy_poll"`
	RxDropped   uint64 `json:"rx_dropped"` // too long for a frame, or no frame
	RxRingFull  uint64 `json:"rx_ring_full"`
	RxFillEmpty uint64 `json:"rx_fill_empty"`
	RxInvalid   uint64 `json:"rx_invalid"`
	TxInvalid   uint64 `json:"tx_invalid"`
	TxErrors    uint64 `json:"tx_errors"` // system calls that failed for another reason than a full queue
	Kicks       uint64 `json:"kicks"`
	RingSize    uint32 `json:"ring_size"`
	RxLevel     uint32 `json:"rx_level"`
	TxLevel     uint32 `json:"tx_level"`
	FillLevel   uint32 `json:"fill_level"`
	LastError   string `json:"last_error,omitempty"`
}

// Status is the daemon as a whole.
type Status struct {
	Node     string   `json:"node"`
	Version  string   `json:"version"`
	Uptime   float64  `json:"uptime_seconds"`
	Ready    bool     `json:"ready"`
	NotReady []string `json:"not_ready,omitempty"` // why not
	Config   string   `json:"config"`
}

// Reload is what a reload has changed.
type Reload struct {
	TunnelsAdded   []string `json:"tunnels_added"`
	TunnelsRemoved []string `json:"tunnels_removed"`
	TunnelsChanged []string `json:"tunnels_changed"`
	TunnelsRenewed []string `json:"tunnels_renewed"` // whose keys IKE has to negotiate anew
	RoutesAdded    int      `json:"routes_added"`
	RoutesRemoved  int      `json:"routes_removed"`
	Endpoints      int      `json:"endpoints_changed"`
	Settings       []string `json:"settings_changed"` // such as analytics.sampling
	Warnings       []string `json:"warnings"`
}

// Applied is what became of a configuration for all nodes.
type Applied struct {
	Reload        // what it changes at the node that was asked
	Serial uint64 `json:"serial"` // 0: it was only tried
}

// Fleet is the configuration that was applied, which all nodes of a cluster have in common, and which of them work with it.
type Fleet struct {
	Clustered bool        `json:"clustered"` // false: this node is alone
	Serial    uint64      `json:"serial"`    // 0: nothing was applied yet
	By        string      `json:"by"`        // the node where it was applied
	AppliedAt string      `json:"applied_at"`
	File      string      `json:"file"` // that it came from
	Digest    string      `json:"digest"`
	Text      string      `json:"text"` // without keys
	Nodes     []FleetNode `json:"nodes"`
}

// A FleetNode is a node and what it works with.
type FleetNode struct {
	Name    string `json:"name"`
	State   string `json:"state"` // as in ClusterNode
	Runs    uint64 `json:"runs"`
	Refused uint64 `json:"refused"`       // serial of a newer one that it does not take over; 0: none
	Why     string `json:"why,omitempty"` // it refuses, or has not kept what it works with
}

// A ClusterNode is a node of the cluster as the one that answers sees it. One that is alone sees itself, without Writer and Epoch.
type ClusterNode struct {
	Name       string   `json:"name"`
	State      string   `json:"state"`         // self, live, silent, refused
	Why        string   `json:"why,omitempty"` // it is refused
	Address    string   `json:"address"`
	Datacenter string   `json:"datacenter"`
	Region     string   `json:"region"`
	Release    string   `json:"release"`
	Writer     uint32   `json:"writer"`    // the number in front of its IVs
	Epoch      uint32   `json:"epoch"`     // the newest of which it has the key
	SAs        int      `json:"child_sas"` // of the whole cluster, that it has
	Agrees     bool     `json:"agrees"`    // they are the same as those of the one that answers
	NotReady   []string `json:"not_ready"`
	HeardAgo   float64  `json:"heard_ago_seconds"`
}

// A StoreReplica is a hub's part of a store that hubs have in common.
type StoreReplica struct {
	Name    string `json:"name"`
	Leads   int    `json:"leads"`   // how many of the buckets
	Current bool   `json:"current"` // it has all that the others have
	Offline bool   `json:"offline"` // it is not heard
	Lag     uint64 `json:"lag"`     // changes that it does not have yet
}

// Cluster is how a node stands in the cluster.
type Cluster struct {
	State        string         `json:"state"`               // alone, joined, away: the store is not reached. Of one that is alone Nodes, SAs, IKESAs and IKEHere say something
	Why          string         `json:"why,omitempty"`       // it is away, or alone and nothing can be applied
	Local        bool           `json:"local"`               // while it is away this node negotiates for its data center
	NotTold      int            `json:"not_told"`            // changes that other nodes of that have not acknowledged then
	ClockAhead   float64        `json:"clock_ahead_seconds"` // by how much this node's clock is ahead of the store's; 0: they agree
	Nodes        int            `json:"nodes"`               // that live, with this one
	Numbered     bool           `json:"numbered"`
	Writer       uint32         `json:"writer"`
	Generation   string         `json:"generation"` // of the store
	Epoch        uint32         `json:"epoch"`      // under which this node seals; 0: it has no key yet
	SAs          int            `json:"child_sas"`
	Digest       string         `json:"digest"` // of them; equal on all nodes
	SPIsReserved int            `json:"spis_reserved"`
	IKESAs       int            `json:"ike_sas"`           // of the whole cluster
	IKEHere      int            `json:"ike_sas_here"`      // of them, that this node has
	IKEVacant    int            `json:"ike_sas_vacant"`    // of nodes that are gone, and not taken over yet
	OwnedHere    int            `json:"owned_here"`        // tunnels with replay protection that this node encrypts for
	Unconfirmed  int            `json:"owned_unconfirmed"` // child SAs that this node encrypts with without the store: another node may do so too
	OwnedThere   int            `json:"owned_elsewhere"`
	Ownerless    int            `json:"owned_by_nobody"`
	Replicas     []StoreReplica `json:"store_replicas"`       // of the store, by name; empty: it has one
	Compared     float64        `json:"compared_ago_seconds"` // when it was looked whether the store has told all that it has; 0: not yet
	NotStored    int            `json:"not_stored"`           // changes of this node that the store has not yet
	NotInstalled int            `json:"not_installed"`        // child SAs that this node could not take
	NotOpened    int            `json:"not_opened"`           // values under epochs of which it has no key
	LateAcks     uint64         `json:"late_acks"`            // acknowledgements that did not come in time
	Refused      uint64         `json:"refused"`              // values that were not believed or not taken
}
