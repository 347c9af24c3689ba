// Package dataset names what can be asked: the datasets of the GraphQL API with their dimensions and measures, as Cloudflare's
// API has them and as the stores keep them. The schema, the queries and the documentation are made from these tables.
package dataset

// A Type is the GraphQL type of a dimension.
type Type string

// The types, by the names that published queries use.
const (
	String  Type = "string"
	Uint8   Type = "uint8"
	Uint16  Type = "uint16"
	Uint32  Type = "uint32"
	Uint64  Type = "uint64"
	Float32 Type = "float32"
	Time    Type = "Time"
	Date    Type = "Date"
)

// A Dimension is something to group, filter and order by.
type Dimension struct {
	Name string // in GraphQL
	Type Type
	Doc  string
	// SQL is its value in a row of the dataset's table, in what SQLite and ClickHouse both understand. It is empty for times,
	// which Bucket makes of column t.
	SQL    string
	Bucket int64 // seconds that a time is rounded down to; 0: not a time
	// Nullable says that a row may have no value: nil, a zero time and the start of 1970 are null then. It is a time that has not come yet:
	// later than any, for conditions that want later ones.
	Nullable bool
}

// A Table is where a store keeps the rows of a dataset.
type Table string

// The tables. Column t is the start of the row's interval in seconds since 1970, and account whose row it is, in all of them.
const (
	TrafficTable Table = "traffic" // exact, for each tunnel, direction and interval
	DropsTable   Table = "drops"   // exact, for each tunnel, direction, reason and interval
	SampleTable  Table = "samples" // a row for each sampled packet
	HealthTable  Table = "health"  // for each tunnel, node and minute
	AttackTable  Table = "attacks" // a row for each attack
	TopTable     Table = "tops"    // for each tunnel, direction, minute or hour, kind, and value that is listed
)

// A Dataset is a field of an account in GraphQL.
type Dataset struct {
	Name       string // of the field
	Type       string // of what it returns
	Doc        string
	Table      Table
	Dimensions []Dimension
	Measures   []Measure
}

// A Block is the part of a group that a measure stands in.
type Block string

// The blocks. A measure of no block stands in the group itself.
const (
	NoBlock Block = ""
	Avg     Block = "avg"
	Sum     Block = "sum"
	Max     Block = "max"
	P95     Block = "p95"
)

// A Measure is a number of a group.
type Measure struct {
	Block Block
	Name  string
	Type  Type
	Doc   string
	Value Value
	// Seconds is what an average is taken over: the same sum, divided by the window that its name says.
	Seconds int64
}

// A Value is what a measure is made of.
type Value uint8

// The values. Of samples and tops, bits and packets are estimates: each sample stands for as many packets as it was one of.
//
// Groups of several stores become one as it stands behind the last ones: what is added up of one store's rows is added up of groups too.
const (
	Rows Value = iota // of the table: samples, probes of one node in one minute, attacks
	Bits              // of inner IP packets
	PacketCount
	DroppedPackets
	DroppedBits
	SampleInterval // mean of how many packets a sample stands for
	TunnelState    // mean of 1 healthy, 0.5 degraded, 0 down
	Probes         // sent
	Lost           // probes without an answer
	RTT            // mean round trip in microseconds

	SampleCount // of tops: samples that a row was made of. Groups add up, as their Rows and variances do, which are of the same samples
	// PacketsError and BitsError are what sketches may have missed. Groups add up: no value had more than its sum, its error and the error of
	// the value `other` together, each over all intervals that were asked for.
	PacketsError
	BitsError
	// DistinctSources is the highest of all rows, and so the highest of groups: how many sources two rows, or nodes, have in common is not
	// known, so it is never a sum.
	DistinctSources
)

// Lookup returns the dimension of that name, or nil.
func (d *Dataset) Lookup(name string) *Dimension {
	for i := range d.Dimensions {
		if d.Dimensions[i].Name == name {
			return &d.Dimensions[i]
		}
	}
	return nil
}

// rates are the names of an average rate and the windows, in seconds, that it is taken over.
var rates = [...]struct {
	suffix  string
	seconds int64
	words   string
}{
	{"", 1, "a second"}, {"TenSeconds", 10, "ten seconds"}, {"Minute", 60, "a minute"}, {"FiveMinutes", 300, "five minutes"},
	{"FifteenMinutes", 900, "fifteen minutes"}, {"Hour", 3600, "an hour"}, {"Day", 86400, "a day"},
}

// averages are the seven rates of bits and of packets: right where grouped by the time of the same name.
func averages() (out []Measure) {
	for _, x := range []struct {
		name  string
		value Value
		words string
	}{{"bitRate", Bits, "bits"}, {"packetRate", PacketCount, "packets"}} {
		for _, r := range rates {
			out = append(out, Measure{Block: Avg, Name: x.name + r.suffix, Type: Uint64, Value: x.value, Seconds: r.seconds,
				Doc: "sum of " + x.words + ", divided by the seconds of " + r.words + ": group by the datetime of the same name"})
		}
	}
	return out
}

// times are dimensions made of a row's time, by name.
func times(names ...string) (out []Dimension) {
	buckets := map[string]int64{"date": 86400, "datetime": 1, "datetimeTenSeconds": 10, "datetimeMinute": 60, "datetimeFiveMinutes": 300,
		"datetimeFifteenMinutes": 900, "datetimeHalfOfHour": 1800, "datetimeHour": 3600}
	for _, n := range names {
		d := Dimension{Name: n, Type: Time, Bucket: buckets[n], Doc: "time, rounded down"}
		if n == "date" {
			d.Type, d.Doc = Date, "day, in UTC"
		}
		out = append(out, d)
	}
	return out
}

func text(name, sql, doc string) Dimension {
	return Dimension{Name: name, Type: String, SQL: sql, Doc: doc}
}

func number(name string, t Type, sql, doc string) Dimension {
	return Dimension{Name: name, Type: t, SQL: sql, Doc: doc}
}

func joined(lists ...[]Dimension) (out []Dimension) {
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

// places say which node counted, in two spellings: those of tunnels' datasets and those of packets'.
func places(prefix string) []Dimension {
	return []Dimension{
		text(prefix+"City", "city", "city of the data center, if the configuration names it"),
		text(prefix+"Code", "datacenter", "data center, as node.datacenter names it"),
		text(prefix+"Country", "country", "country of the data center, if the configuration names it"),
		text(prefix+"Geohash", "geohash", "place of the data center, if the configuration names it"),
		text(prefix+"Name", "datacenter", "data center, as node.datacenter names it"),
	}
}

// All are the datasets.
var All = []*Dataset{Traffic, Drops, Packets, Tops, Health, Attacks}
