// Package store keeps what analytics knows, and answers for it. Stores differ in where: sqlite keeps files of its own, clickhouse
// asks a server.
package store

import (
	"context"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/flow"
)

// An Ingester takes rows. Each batch is written whole or not at all, and what was written is there after a crash.
type Ingester interface {
	Write(ctx context.Context, b *Batch) error
}

// A Querier answers. An account never sees another's rows.
type Querier interface {
	// Groups returns the groups of a dataset, at most q.Limit of them.
	Groups(ctx context.Context, q *Query) (*Answer, error)
}

// A Refusal says what is wrong with a question: it is for who asked, and nothing is wrong with the store.
type Refusal string

func (r Refusal) Error() string { return string(r) }

// A Place is where rows were counted.
type Place struct {
	Node, DataCenter, Region string
	City, Country, Geohash   string // of the data center; empty if not configured
}

// A Batch is rows of all tables, of one node.
type Batch struct {
	Place   Place
	Traffic []Traffic
	Drops   []Drops
	Samples []Sample
	Health  []Health
	Attacks []Attack
	Tops    []Top
}

// Traffic is the exact count of one tunnel in one direction during one second. Seconds without packets have no row.
type Traffic struct {
	Time      int64 // start of the second, since 1970
	Account   string
	Tunnel    *flow.Tunnel
	Direction flow.Direction // lateral traffic counts for the tunnel that it went into
	Packets   uint64
	Bytes     uint64 // of inner IP packets
	Dropped   uint64 // packets
}

// Drops is the exact count of one reason in one second. Tunnel is nil where no tunnel was found, and then the account is empty:
// only the operator sees the row.
type Drops struct {
	Time      int64
	Account   string
	Tunnel    *flow.Tunnel
	Direction flow.Direction
	Reason    string
	Packets   uint64
}

// Sample is a sampled packet, taken apart, as one account may see it.
type Sample struct {
	Account string
	flow.Sample
	Packet   flow.Header
	Src, Dst Origin
	Probe    bool // of a health check
}

// Origin is what is known of an address beyond itself: nothing without a database.
type Origin struct {
	ASN     uint32
	ASName  string
	Country string // two letters
}

// Health is what one node's probes found of one tunnel in one minute.
type Health struct {
	Time         int64 // start of the minute
	Account      string
	Tunnel       *flow.Tunnel
	Remote       string // customer endpoint
	State        string // healthy, degraded or down
	Active       bool   // it carried traffic here in that minute
	Probes, Lost uint64
	RTT          time.Duration // mean of the answered
}

// Attack is one attack as it is known now; a later one with the same ID replaces it.
type Attack struct {
	ID             string
	Account        string
	Start, End     int64 // seconds since 1970; End is 0 while it goes on
	Type, Vector   string
	Src, Dst       string // Src: of most packets
	SrcPort        uint16
	DstPort        uint16
	Protocol       uint8
	TCPFlags       uint8
	Packets, Bits  uint64
	DroppedPackets uint64
	DroppedBits    uint64
}

// A TopKind is what a Top tells the values of. Its text is that of the dimension of samples with the same values, and a value of the dimension
// `kind`.
type TopKind uint8

// The kinds. A store may keep their numbers.
const (
	TopTotal TopKind = iota // of all values: what the rows of each other kind add up to
	TopSourceAddress
	TopDestinationAddress
	TopSourcePort
	TopDestinationPort
	TopProtocol
	TopTCPFlags
	TopPacketSize
	TopSourceCountry
	TopDestinationCountry
	TopSourceASN
	TopDestinationASN
)

// TopKinds are the texts of all kinds.
var TopKinds = [...]string{TopTotal: "total", TopSourceAddress: "ipSourceAddress", TopDestinationAddress: "ipDestinationAddress",
	TopSourcePort: "sourcePort", TopDestinationPort: "destinationPort", TopProtocol: "ipProtocolName", TopTCPFlags: "tcpFlagsString",
	TopPacketSize: "ipTotalLengthBuckets", TopSourceCountry: "sourceCountry", TopDestinationCountry: "destinationCountry",
	TopSourceASN: "sourceAsn", TopDestinationASN: "destinationAsn"}

func (k TopKind) String() string { return TopKinds[k] }

// TopOther is the value of all that is not listed.
const TopOther = "other"

// Top is what the samples of one minute, or hour, say of one value, of one tunnel and direction. Rows of the same interval, tunnel, direction,
// kind and value add up, but for Sources, of which the highest counts.
type Top struct {
	Time      int64 // start of the interval
	Hour      bool  // the interval is an hour, else a minute
	Account   string
	Tunnel    *flow.Tunnel // nil: none, and then the account is empty
	Direction flow.Direction
	Kind      TopKind
	Value     string

	Samples         uint64
	Packets, Bytes  uint64  // that the samples stand for
	PacketsVariance float64 // sums of w(w-1), and of w(w-1)x^2, where a sample stands for w packets of x bits: see Group
	BitsVariance    float64

	// What the sketch may have missed: a value had at most so much more in the samples. Of TopOther: the most that any one value which is
	// not listed had.
	PacketsError, BytesError uint64
	Sources                  uint64 // distinct source addresses of the samples; of TopTotal alone
}

// Operator is the account that sees the rows of all.
const Operator = "*"

// A Query asks for groups of a dataset.
type Query struct {
	Dataset  *dataset.Dataset
	Account  string // its rows; Operator: everybody's
	Where    Where
	By       []*dataset.Dimension // no group is made of what is not asked for
	Measures []dataset.Measure    // that are asked for, or ordered by
	Order    []Order
	Limit    int
}

// Where is a condition: all of All, and one of Any if there are any, and the comparison if Dimension is not nil.
type Where struct {
	All, Any  []Where
	Dimension *dataset.Dimension
	Op        Op
	Values    []any // one, or with In and NotIn any number: string, uint64 or time.Time, as the dimension's type is
}

// An Op compares a dimension with values. Its text is the suffix of the filter in GraphQL.
type Op string

// The comparisons. Like has the wildcards of SQL, % and _.
const (
	Equal   Op = ""
	Greater Op = "_gt"
	AtLeast Op = "_geq"
	Less    Op = "_lt"
	AtMost  Op = "_leq"
	Not     Op = "_neq"
	In      Op = "_in"
	NotIn   Op = "_notin"
	Like    Op = "_like"
	NotLike Op = "_notlike"
)

// Order is one of the things that groups are ordered by: a dimension that is grouped by, or a measure that is asked for.
type Order struct {
	Dimension  *dataset.Dimension // nil: Measure
	Measure    dataset.Measure
	Descending bool
}

// An Answer is the groups that were asked for.
type Answer struct {
	Groups     []Group
	Resolution time.Duration // of the rows that the answer was made of
	Missing    []Missing     // nodes whose rows the answer lacks, by name
}

// Missing is a node that has not answered.
type Missing struct{ Node, Why string }

// A Group is what rows with the same values of the dimensions add up to.
type Group struct {
	Values   []any     // as Query.By: string, uint64 or time.Time
	Measures []float64 // as Query.Measures; counts are exact up to 2^53

	// Of samples, and what was added up of them, for intervals of confidence: how many samples there are, and the sums of w(w-1) and of
	// w(w-1)x^2, where a sample stands for w packets of x bits (Horvitz-Thompson).
	Rows            uint64
	PacketsVariance float64
	BitsVariance    float64
}
