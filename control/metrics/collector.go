package metrics

import (
	"fmt"
	"runtime"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"causeway/control/cluster"
	"causeway/control/health"
	"causeway/control/health/bfd"
	"causeway/control/ike"
	"causeway/control/pmtu"
	"causeway/pipeline"
	"causeway/xsk"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("causeway_"+name, help, labels, nil)
}

// The metrics, in the order of the packet's way.
var (
	buildInfo = desc("build_info", "1, with the version of the program and of Go as labels.", "version", "go_version")
	nodeInfo  = desc("node_info", "1, with the node's name and place as labels.", "node", "datacenter", "region")
	ready     = desc("ready", "1 while the node should get traffic, 0 while it starts, drains or a worker hangs.")

	portInfo    = desc("port_info", "1, with the mode of an interface's AF_XDP sockets (zero-copy, copy, generic) and its driver as labels.", "port", "mode", "driver")
	portSteered = desc("port_steered_packets_total", "Packets that an interface received, by the class that the steering program put them in.", "port", "class", "to")
	rxLost      = desc("port_receive_lost_packets_total", "Packets that the kernel dropped before a worker saw them: longer than a frame (too_long), RX ring full (ring_full), no frame to receive into (no_frame), frame outside the memory (invalid).", "port", "queue", "reason")
	txInvalid   = desc("port_transmit_invalid_packets_total", "Descriptors on a TX ring that the kernel refused.", "port", "queue")
	sysErrors   = desc("port_system_call_errors_total", "System calls on a socket that failed, by cause; what was to be sent stays on the ring.", "port", "queue", "error")
	kicks       = desc("port_kicks_total", "System calls that made the kernel look at a TX ring.", "port", "queue")
	ringFrames  = desc("port_ring_frames", "Frames on a ring of a socket now.", "port", "queue", "ring")
	ringSize    = desc("port_ring_size_frames", "Frames that each ring of a socket holds.", "port", "queue")

	frames     = desc("worker_frames_total", "Frames by what became of them. received + originated + fragments = forwarded + delivered + punted + dropped + joined + held.", "worker", "event")
	held       = desc("worker_held_frames", "Frames that wait in a worker for the rest of their datagram.", "worker")
	work       = desc("worker_packets_total", "Packets that a worker did something special with.", "worker", "action")
	batches    = desc("worker_batches_total", "Batches of frames that a worker took from its queues.", "worker")
	emptyPolls = desc("worker_empty_polls_total", "Polls of all queues of a worker that found nothing.", "worker")
	sleeps     = desc("worker_sleeps_total", "Times that a worker waited in poll(2) for traffic.", "worker")
	pollGap    = desc("worker_poll_gap_seconds", "Times between two polls of a worker, those asleep left out. The sum is an estimate from the buckets.", "worker")
	maxPollGap = desc("worker_poll_gap_max_seconds", "Longest time between two polls of a worker since the start.", "worker")
	lastPoll   = desc("worker_last_poll_timestamp_seconds", "When a worker last looked at its queues.", "worker")

	dropped = desc("dropped_packets_total", "Packets that were not forwarded, by reason and the stage of the packet's way; docs/operations.md says what to do about each.", "stage", "reason")

	tunnelRX        = desc("tunnel_receive_packets_total", "Packets that came out of a tunnel, from the customer.", "tunnel", "account")
	tunnelRXBytes   = desc("tunnel_receive_bytes_total", "Bytes of the inner packets that came out of a tunnel.", "tunnel", "account")
	tunnelTX        = desc("tunnel_transmit_packets_total", "Packets that were sent into a tunnel, to the customer.", "tunnel", "account")
	tunnelTXBytes   = desc("tunnel_transmit_bytes_total", "Bytes of the inner packets that were sent into a tunnel.", "tunnel", "account")
	tunnelDrops     = desc("tunnel_dropped_packets_total", "Packets of a tunnel that were not forwarded.", "tunnel", "account", "direction")
	tunnelMTU       = desc("tunnel_effective_mtu_bytes", "Largest inner packet that a tunnel carries now: its configured MTU or what its path was learned to carry.", "tunnel", "account")
	tunnelRouted    = desc("tunnel_routed", "1 while a route leads to the tunnel's customer endpoint.", "tunnel", "account")
	tunnelHealth    = desc("tunnel_health_state", "State of a tunnel that is probed: 1 healthy, 0.5 degraded, 0 down.", "tunnel", "account")
	tunnelProbes    = desc("tunnel_health_probes_total", "Probes of a tunnel, by how they ended: answered, lost.", "tunnel", "account", "result")
	tunnelBFD       = desc("tunnel_bfd_up", "Whether this node's session of BFD with the tunnel's router is up. Not there where another node has it.", "tunnel", "account")
	tunnelLearned   = desc("tunnel_learned_routes", "Prefixes that the account of a tunnel with kernel_interface has learned through it.", "tunnel", "account")
	devicePackets   = desc("tunnel_device_packets_total", "Packets of the host's device of a tunnel with kernel_interface: to_kernel and from_kernel have passed; refused the kernel did not take; unsent another node speaks for, or there was no room.", "tunnel", "account", "what")
	notices         = desc("tunnel_health_notices_total", "Changes of tunnels' states that were to be posted to the webhook: delivered, failed (a try, which is made again), dropped.", "result")
	samples         = desc("analytics_samples_total", "Packets that were sampled, by what became of the sample: taken, or thinned, which others stand for in the store since more came than it keeps.", "result")
	samplingShift   = desc("analytics_sampling_shift", "By which power of two samples are rarer than configured, because the workers' rings were full.")
	leftOut         = desc("analytics_tops_left_out_samples_total", "Samples of tunnels that the lists of the most frequent had no memory for in their minute.")
	unwritten       = desc("analytics_unwritten_batches_total", "Batches of rows that were given up, because the store did not take them within a minute.")
	bufferedBytes   = desc("analytics_store_buffered_bytes", "What waits for ClickHouse in files of the node. Not there without ClickHouse.")
	bufferLimit     = desc("analytics_store_buffer_limit_bytes", "How much may wait: then the oldest is given up.")
	storeAway       = desc("analytics_store_away", "1 while ClickHouse was not reached the last time.")
	storeRows       = desc("analytics_store_rows_total", "Rows for ClickHouse, by what became of them: sent, lost (there was no room to let them wait), refused (it would not have them).", "result")
	attacks         = desc("analytics_attacks_total", "Attacks that were detected, by vector.", "vector")
	attacksActive   = desc("analytics_attacks_active", "Attacks that go on.")
	nodeAnswers     = desc("analytics_node_answers_total", "Times that another node of the cluster was asked for its rows, by whether it has answered in time: answered, missed.", "result")
	exported        = desc("analytics_export_datagrams_total", "Datagrams for collectors of sFlow and IPFIX, by what became of them: sent, failed (a collector's host may refuse what was sent).", "protocol", "collector", "result")
	tunnelRTT       = desc("tunnel_health_rtt_seconds", "How long answers to the probes of a tunnel take, smoothed. Not there before the first answer.", "tunnel", "account")
	saInfo          = desc("sa_info", "1, with what is known of a security association of a tunnel: its direction (in, out), SPI and encryption.", "tunnel", "direction", "spi", "encryption")
	saSequence      = desc("sa_sequence_number", "Next sequence number of a security association for sending; highest one that one for receiving has received.", "tunnel", "direction", "spi")
	saPackets       = desc("sa_packets_total", "Packets that a security association encrypted, or received and found authentic.", "tunnel", "direction", "spi")
	saBytes         = desc("sa_bytes_total", "Bytes of the inner packets that a security association encrypted, or received and found authentic.", "tunnel", "direction", "spi")
	saRefused       = desc("sa_refused_packets_total", "Packets that a security association refused to send or to receive, by drop reason.", "tunnel", "direction", "spi", "reason")
	saSoft          = desc("sa_soft_lifetime_over", "1 when the soft lifetime of a security association is over: it should be replaced.", "tunnel", "direction", "spi")
	ikeSAs          = desc("ike_sas", "IKE SAs that are established.")
	ikeHalfOpen     = desc("ike_half_open_sas", "IKE SAs whose peer has not shown yet who it is.")
	ikeNegotiations = desc("ike_negotiations_total", "Negotiations of IKE SAs, by how they ended.", "result")
	ikeRekeys       = desc("ike_rekeys_total", "SAs that were replaced by new ones, by kind: ike, child.", "kind")
	ikeCookies      = desc("ike_cookies_sent_total", "Requests that were answered with a cookie, because many peers began at once.")
	ikeRepeats      = desc("ike_retransmissions_total", "Requests that were sent again, because no answer came.")
	ikeDefects      = desc("ike_defects_total", "Panics of the IKE daemon; each ended one IKE SA at most. Please report the log's lines.")
	ikeDropped      = desc("ike_dropped_datagrams_total", "Datagrams of IKE that were not processed, by reason.", "reason")
	ikeForwarded    = desc("ike_forwarded_datagrams_total", "Datagrams of IKE that came to another node of the cluster than the one that has their SA, by direction: in, out.", "direction")
	ikeAnsweredFor  = desc("ike_answered_for_total", "Signs of life that this node has given, while the cluster's store was away, for IKE SAs that other nodes have.")
	ikeTakenOver    = desc("ike_taken_over_total", "IKE SAs of nodes that are gone, with which this node goes on.")
	ikeNotStored    = desc("ike_store_failures_total", "Writes of IKE SAs that the cluster's store did not take. They are tried again.")
	clusterIKE      = desc("cluster_ike_sas", "IKE SAs of the whole cluster, by who has them: here, elsewhere, gone (nodes that are gone).", "where")
	clusterOwned    = desc("cluster_protected_tunnels", "Tunnels with replay protection, by who encrypts for them: here, elsewhere, nobody.", "owner")
	clusterJoined   = desc("cluster_joined", "1 while the cluster's store is reached. A node that is alone has of the cluster's metrics causeway_cluster_fleet_serial alone.")
	clusterNodes    = desc("cluster_nodes", "Nodes of the cluster that live, with this one.")
	clusterSAs      = desc("cluster_child_sas", "Child SAs of the whole cluster that this node knows.")
	clusterEpoch    = desc("cluster_epoch", "Number of the epoch under whose key this node seals; 0: it has none.")
	clusterBehind   = desc("cluster_behind", "What is not done yet: changes of this node that the store has not (not_stored), child SAs that this node could not take (not_installed), values without a key (not_opened), changes that other nodes of the data center have not acknowledged while the store is away (not_told).", "what")
	clusterClock    = desc("cluster_clock_ahead_seconds", "By how much this node's clock is ahead of the store's, less than 0: behind. 0: they differ by less than 5 s.")
	clusterSPIs     = desc("cluster_reserved_spis", "SPIs that are reserved ahead for negotiations of this node.")
	clusterDocument = desc("cluster_fleet_serial", "Serial of the configuration that was applied, and that all nodes of a cluster have in common: the newest one (newest), and the one that this node works with (runs). They differ while it is taken over, or when it was refused.", "which")
	clusterReplicas = desc("cluster_store_replicas", "Replicas of the cluster's store, if it has several, by state: current, behind, away. Another hub may be stopped when all are current.", "state")
	clusterLag      = desc("cluster_store_lag", "Changes that the replica which is the furthest behind does not have yet.")
	clusterCompared = desc("cluster_compared_age_seconds", "Time since it was looked whether the cluster's store has told this node all that it has. Not there before the first time.")
	clusterLate     = desc("cluster_late_acknowledgements_total", "Acknowledgements of new child SAs that did not come in time.")
	clusterRefused  = desc("cluster_refused_values_total", "Values of the cluster that were not believed or not taken.")
	pathMTUReports  = desc("path_mtu_reports_total", "ICMP errors about packets too big for their path, by what was made of them.", "verdict")
	tunPackets      = desc("tun_packets_total", "Packets between the workers and the kernel through the TUN device.", "direction")
	tunErrors       = desc("tun_errors_total", "Packets that the kernel (to_kernel) or the workers' queue (from_kernel) did not take.", "direction")
	routeCount      = desc("routes", "Routes that are known, by where they come from.", "source")
	prefixes        = desc("route_prefixes", "Prefixes in all routing tables.")
	neighbours      = desc("neighbours", "Hosts that the kernel knows on the ports' links.")
	nextHops        = desc("next_hops_used", "Neighbours that routes and tunnels use.")
	groups          = desc("next_hop_groups", "Groups of equal-cost next hops.")
	groupsLate      = desc("next_hop_group_parts_away", "Parts of groups, 256 each, whose flows stay with another member than the weights say; `causeway rebalance` moves them.")
	routeUpdates    = desc("route_updates_total", "Messages about routes, links and neighbours that the kernel sent.")
	routeMalformed  = desc("route_malformed_updates_total", "Messages of the kernel that were not understood.")
	routeChanges    = desc("route_changes_total", "Writes to the workers' forwarding tables.")
	routeOverruns   = desc("route_overruns_total", "Times that the kernel lost messages because they were not read in time.")
	routeResyncs    = desc("route_resyncs_total", "Complete readings of the kernel's tables, the first one included.")
	routeMaxLag     = desc("route_lag_max_seconds", "Longest time from a message of the kernel to the workers' tables.")
	neighbourAsked  = desc("neighbour_requests_total", "Neighbours that the kernel was asked to resolve, by what became of the wish.", "result")
	routesExhausted = desc("route_exhausted_total", "Next hops and groups that had to be left out because a table was full.", "table")
)

// collector reads everything at the time of the scrape. It is unchecked (Describe sends nothing), because the sets of
// tunnels and their labels change with the configuration.
type collector struct{ s Source }

func newCollector(s Source) *collector { return &collector{s} }

// Describe implements prometheus.Collector.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// out is where one scrape goes.
type out chan<- prometheus.Metric

func (o out) counter(d *prometheus.Desc, v uint64, labels ...string) {
	o <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func (o out) gauge(d *prometheus.Desc, v float64, labels ...string) {
	o <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	o := out(ch)
	o.gauge(buildInfo, 1, c.s.Version, runtime.Version())
	o.gauge(nodeInfo, 1, c.s.Node, c.s.Datacenter, c.s.Region)
	o.gauge(ready, truth(len(c.s.NotReady()) == 0))
	for _, p := range c.s.Ports {
		o.port(p)
	}
	for i, k := range c.s.Engine.Counters() {
		o.worker(c.s.Engine, i, &k)
	}
	total := c.s.Engine.Total()
	for _, r := range pipeline.AllReasons() {
		info := r.Info()
		o.counter(dropped, total.Dropped[r], string(info.Stage), info.Label)
	}
	for _, t := range c.s.Tunnels() {
		o.tunnel(c.s.Engine, t)
	}
	for _, a := range c.s.SAs() {
		o.association(a)
	}
	c.control(o)
}

func (o out) association(a SA) {
	direction := "out"
	if a.Inbound {
		direction = "in"
	}
	spi := fmt.Sprintf("%#x", a.SPI)
	o.gauge(saInfo, 1, a.Tunnel, direction, spi, a.Encryption)
	o.gauge(saSoft, truth(a.SoftExpired), a.Tunnel, direction, spi)
	o.gauge(saSequence, float64(a.Sequence), a.Tunnel, direction, spi)
	o.counter(saPackets, a.Packets, a.Tunnel, direction, spi)
	o.counter(saBytes, a.Bytes, a.Tunnel, direction, spi)
	for reason, n := range a.Refused {
		o.counter(saRefused, n, a.Tunnel, direction, spi, reason)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (o out) port(p *xsk.Port) {
	mode, _ := p.Mode()
	o.gauge(portInfo, 1, p.Name(), mode.String(), p.Interface().Driver)
	if steered, err := p.Steered(); err == nil {
		for class, packets := range steered {
			to := "kernel"
			if class.ToWorker() {
				to = "worker"
			}
			o.counter(portSteered, packets, p.Name(), class.String(), to)
		}
	}
	for _, s := range p.Sockets() {
		o.socket(p.Name(), strconv.Itoa(s.Queue()), s.Stats())
	}
}

func (o out) socket(port, queue string, st xsk.Stats) {
	// In copy mode the kernel counts a packet that finds no frame under both.
	o.counter(rxLost, st.RxDropped-min(st.RxDropped, st.RxFillEmpty), port, queue, "too_long")
	o.counter(rxLost, st.RxRingFull, port, queue, "ring_full")
	o.counter(rxLost, st.RxFillEmpty, port, queue, "no_frame")
	o.counter(rxLost, st.RxInvalid, port, queue, "invalid")
	o.counter(txInvalid, st.TxInvalid, port, queue)
	o.counter(sysErrors, st.Busy, port, queue, "busy")
	o.counter(sysErrors, st.NoBuffers, port, queue, "no_buffers")
	o.counter(sysErrors, st.LinkDown, port, queue, "link_down")
	o.counter(sysErrors, st.Gone, port, queue, "interface_gone")
	o.counter(sysErrors, st.Stalled, port, queue, "stalled")
	o.counter(sysErrors, st.OtherErrors, port, queue, "other")
	o.counter(kicks, st.Kicks, port, queue)
	o.gauge(ringFrames, float64(st.FillLevel), port, queue, "fill")
	o.gauge(ringFrames, float64(st.RxLevel), port, queue, "rx")
	o.gauge(ringFrames, float64(st.TxLevel), port, queue, "tx")
	o.gauge(ringFrames, float64(st.CompletionLevel), port, queue, "completion")
	o.gauge(ringSize, float64(st.RingSize), port, queue)
}

func (o out) worker(e *pipeline.Engine, i int, k *pipeline.Counters) {
	w := strconv.Itoa(i)
	o.counter(frames, k.Received, w, "received")
	o.counter(frames, k.Originated, w, "originated")
	o.counter(frames, k.Fragments, w, "fragments")
	o.counter(frames, k.Forwarded, w, "forwarded")
	o.counter(frames, k.Delivered, w, "delivered")
	o.counter(frames, k.Punted, w, "punted")
	o.counter(frames, k.DroppedTotal(), w, "dropped")
	o.counter(frames, k.Joined, w, "joined")
	o.gauge(held, float64(k.Held), w)
	o.counter(work, k.Decapsulated, w, "decapsulated")
	o.counter(work, k.Encapsulated, w, "encapsulated")
	o.counter(work, k.General, w, "general")
	o.counter(work, k.MSSClamped, w, "mss_clamped")
	o.counter(work, k.ICMPErrors, w, "icmp_error_sent")
	o.counter(work, k.ICMPSuppressed, w, "icmp_error_suppressed")
	o.counter(work, k.HandedOver, w, "handed_over")
	o.counter(work, k.ToOwner, w, "to_owner")
	o.counter(work, k.FromNodes, w, "from_nodes")
	o.counter(work, k.Injected, w, "injected")
	o.counter(work, k.Samples, w, "sampled")
	o.counter(work, k.SamplesLost, w, "sample_lost")
	o.counter(batches, k.Batches, w)
	o.counter(emptyPolls, k.EmptyPolls, w)
	o.counter(sleeps, k.Sleeps, w)
	count, sum, buckets := histogram(&k.PollGap)
	o <- prometheus.MustNewConstHistogram(pollGap, count, sum, buckets, w)
	o.gauge(maxPollGap, float64(k.MaxPollGapNS)/1e9, w)
	o.gauge(lastPoll, float64(e.LastPoll(i).UnixNano())/1e9, w)
}

// histogram makes cumulative buckets in seconds. The workers do not add up the gaps, so the sum takes each as long as
// three quarters of its bucket's bound: the middle of the bucket, because bounds double.
func histogram(gaps *[pipeline.PollGapBuckets]uint64) (count uint64, sum float64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(gaps)-1)
	for i, n := range gaps {
		count += n
		bound := float64(pipeline.PollGapBound(i)) / 1e9
		sum += float64(n) * bound * 0.75
		if i < len(gaps)-1 { // the last one has no bound
			buckets[bound] = count
		}
	}
	return count, sum, buckets
}

func (o out) tunnel(e *pipeline.Engine, t Tunnel) {
	k := e.TunnelCounters(t.ID)
	o.counter(tunnelRX, k.RXPackets, t.Name, t.Account)
	o.counter(tunnelRXBytes, k.RXBytes, t.Name, t.Account)
	o.counter(tunnelTX, k.TXPackets, t.Name, t.Account)
	o.counter(tunnelTXBytes, k.TXBytes, t.Name, t.Account)
	o.counter(tunnelDrops, k.RXDrops, t.Name, t.Account, "receive")
	o.counter(tunnelDrops, k.TXDrops, t.Name, t.Account, "transmit")
	o.gauge(tunnelMTU, float64(t.EffectiveMTU), t.Name, t.Account)
	o.gauge(tunnelRouted, truth(t.Routed), t.Name, t.Account)
	if t.Health != nil {
		o.health(t)
	}
	if t.BFD != nil {
		o.gauge(tunnelBFD, truth(t.BFD.State == bfd.Up), t.Name, t.Account)
	}
	if d := t.Device; d != nil {
		o.gauge(tunnelLearned, float64(d.Learned), t.Name, t.Account)
		o.counter(devicePackets, d.Packets.ToKernel, t.Name, t.Account, "to_kernel")
		o.counter(devicePackets, d.Packets.FromKernel, t.Name, t.Account, "from_kernel")
		o.counter(devicePackets, d.Packets.Refused, t.Name, t.Account, "refused")
		o.counter(devicePackets, d.Packets.Unsent, t.Name, t.Account, "unsent")
	}
}

func (o out) health(t Tunnel) {
	h := t.Health
	o.gauge(tunnelHealth, [...]float64{health.Healthy: 1, health.Degraded: 0.5, health.Down: 0}[h.State], t.Name, t.Account)
	o.counter(tunnelProbes, h.Answered, t.Name, t.Account, "answered")
	o.counter(tunnelProbes, h.Lost, t.Name, t.Account, "lost")
	if h.RTT > 0 {
		o.gauge(tunnelRTT, h.RTT.Seconds(), t.Name, t.Account)
	}
}

// control shows what is not per packet.
func (o out) negotiation(s ike.Stats) {
	o.gauge(ikeSAs, float64(s.SAs))
	o.gauge(ikeHalfOpen, float64(s.HalfOpen))
	o.counter(ikeNegotiations, s.Established, "established")
	o.counter(ikeNegotiations, s.Failed, "failed")
	o.counter(ikeRekeys, s.RekeyedIKE, "ike")
	o.counter(ikeRekeys, s.RekeyedChildren, "child")
	o.counter(ikeCookies, s.CookiesSent)
	o.counter(ikeRepeats, s.Retransmissions)
	o.counter(ikeDefects, s.Defects)
	o.counter(ikeForwarded, s.ForwardedIn, "in")
	o.counter(ikeForwarded, s.ForwardedOut, "out")
	o.counter(ikeAnsweredFor, s.AnsweredFor)
	o.counter(ikeTakenOver, s.TakenOver)
	o.counter(ikeNotStored, s.NotStored)
	for reason, n := range s.Dropped {
		o.counter(ikeDropped, n, reason)
	}
}

func (o out) analytics(a Analytics) {
	o.counter(samples, a.Samples-a.Thinned, "taken")
	o.counter(samples, a.Thinned, "thinned")
	o.gauge(samplingShift, float64(a.Shift))
	o.counter(unwritten, a.Unwritten)
	o.counter(leftOut, a.LeftOut)
	if b := a.Buffer; b != nil {
		o.gauge(bufferedBytes, float64(b.Bytes))
		o.gauge(bufferLimit, float64(b.Limit))
		o.gauge(storeAway, truth(b.Away))
		o.counter(storeRows, b.Sent, "sent")
		o.counter(storeRows, b.Lost, "lost")
		o.counter(storeRows, b.Refused, "refused")
	}
	for vector, n := range a.Attacks {
		o.counter(attacks, n, vector)
	}
	o.gauge(attacksActive, float64(a.Active))
	o.counter(nodeAnswers, a.Answered, "answered")
	o.counter(nodeAnswers, a.Missed, "missed")
	for _, x := range a.Collectors {
		o.counter(exported, x.Sent, x.Protocol, x.Address, "sent")
		o.counter(exported, x.Failed, x.Protocol, x.Address, "failed")
	}
}

func (o out) replicas(list []cluster.Replica) {
	if len(list) == 0 {
		return
	}
	var current, behind, away int
	var lag uint64
	for _, r := range list {
		switch {
		case r.Offline:
			away++
		case r.Current && r.Lag == 0:
			current++
		default:
			behind++
		}
		lag = max(lag, r.Lag)
	}
	o.gauge(clusterReplicas, float64(current), "current")
	o.gauge(clusterReplicas, float64(behind), "behind")
	o.gauge(clusterReplicas, float64(away), "away")
	o.gauge(clusterLag, float64(lag))
}

func (o out) cluster(s cluster.Status) {
	o.gauge(clusterJoined, truth(s.Trouble == ""))
	o.gauge(clusterNodes, float64(s.Nodes))
	o.gauge(clusterSAs, float64(s.SAs))
	o.gauge(clusterIKE, float64(s.IKEHere), "here")
	o.gauge(clusterIKE, float64(s.IKEVacant), "gone")
	o.gauge(clusterIKE, float64(s.IKESAs-s.IKEHere-s.IKEVacant), "elsewhere")
	o.gauge(clusterOwned, float64(s.OwnedHere), "here")
	o.gauge(clusterOwned, float64(s.OwnedThere), "elsewhere")
	o.gauge(clusterOwned, float64(s.Ownerless), "nobody")
	o.gauge(clusterEpoch, float64(s.Epoch))
	o.gauge(clusterBehind, float64(s.NotStored), "not_stored")
	o.gauge(clusterBehind, float64(s.NotInstalled), "not_installed")
	o.gauge(clusterBehind, float64(s.NotOpened), "not_opened")
	o.gauge(clusterBehind, float64(s.NotTold), "not_told")
	o.gauge(clusterSPIs, float64(s.Stock))
	o.gauge(clusterClock, s.ClockAhead.Seconds())
	o.replicas(s.Replicas)
	if s.Compared > 0 {
		o.gauge(clusterCompared, s.Compared.Seconds())
	}
	o.counter(clusterLate, s.LateAcks)
	o.counter(clusterRefused, s.Refused)
}

func (c *collector) control(o out) {
	o.negotiation(c.s.IKE())
	if c.s.Cluster != nil {
		o.cluster(c.s.Cluster())
	}
	newest, runs := c.s.Applied()
	o.gauge(clusterDocument, float64(newest), "newest")
	o.gauge(clusterDocument, float64(runs), "runs")
	reports := c.s.PathMTU()
	for _, v := range pmtu.Verdicts {
		o.counter(pathMTUReports, reports[v], string(v))
	}
	if c.s.Notices != nil {
		delivered, failed, dropped := c.s.Notices()
		o.counter(notices, delivered, "delivered")
		o.counter(notices, failed, "failed")
		o.counter(notices, dropped, "dropped")
	}
	if c.s.Analytics != nil {
		o.analytics(c.s.Analytics())
	}
	d := c.s.TUN()
	o.counter(tunPackets, d.Written, "to_kernel")
	o.counter(tunPackets, d.Read, "from_kernel")
	o.counter(tunErrors, d.WriteErrors, "to_kernel")
	o.counter(tunErrors, d.Refused, "from_kernel")
	r := c.s.Routes()
	o.gauge(routeCount, float64(r.Routes4), "kernel_ipv4")
	o.gauge(routeCount, float64(r.Routes6), "kernel_ipv6")
	o.gauge(routeCount, float64(r.Local), "kernel_local")
	o.gauge(routeCount, float64(r.Static), "configuration")
	o.gauge(routeCount, float64(r.Learned), "learned")
	o.gauge(prefixes, float64(r.Prefixes))
	o.gauge(neighbours, float64(r.Neighbours))
	o.gauge(nextHops, float64(r.Slots))
	o.gauge(groups, float64(r.Groups))
	o.gauge(groupsLate, float64(r.Late))
	o.counter(routeUpdates, r.Updates)
	o.counter(routeMalformed, r.Malformed)
	o.counter(routeChanges, r.Changes)
	o.counter(routeOverruns, r.Overruns)
	o.counter(routeResyncs, r.Resyncs)
	o.gauge(routeMaxLag, r.MaxLag.Seconds())
	o.counter(neighbourAsked, r.Asked, "asked")
	o.counter(neighbourAsked, r.AskSuppressed, "suppressed")
	o.counter(neighbourAsked, r.AskFailed, "failed")
	o.counter(routesExhausted, r.SlotsExhausted, "neighbours")
	o.counter(routesExhausted, r.GroupExhausted, "groups")
}
