// Package cluster makes one endpoint of many nodes: what one of them has negotiated, all of them have.
//
// The store is NATS JetStream (room engine): buckets of keys and values on the hubs. Two ways lead from the node that has something to
// say to the others: a publication at once, which they acknowledge, and the value in the bucket, which is the truth. Values are sealed
// (room seal) and carry a version and a generation; what is older than what a node has seen it does not take.
//
//	store.go    the buckets
//	member.go   who is there: signed records, leases, the roster
//	beat.go     that a node lives: beats beside the records
//	usage.go    what all nodes together have done with children that have a lifetime in packets or bytes
//	path.go     what was learned of the paths to customers
//	floor.go    which packets of children are too old, whichever node had them
//	watch.go    that a process has ended, before its lease has
//	epoch.go    the keys under which values are sealed: made, given on, replaced, destroyed
//	writer.go   the number of this process, in front of its IVs
//	spi.go      SPIs, reserved for the whole cluster
//	record.go   a child SA as it is shared
//	replica.go  the records that this node has, and what becomes of them
//	index.go    the same by tunnel, by when they end, and those that the store does not have
//	ike.go      IKE SAs as they are shared: who has one, and who goes on with it
//	owner.go    who encrypts for tunnels with replay protection, and which sequence numbers it has reserved; other nodes' addresses and keys
//	forward.go  IKE datagrams that come to a node which does not have their SA; which node is the first for something
//	acks.go     acknowledgements of new child SAs, of those that are waited for
//	share.go    the dataplane that IKE sees: what it installs here is installed everywhere
//	cluster.go  the goroutine that holds all together
package cluster
