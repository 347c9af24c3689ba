// Package routes fills the workers' forwarding tables: it is the one writer of pipeline.Forwarding. It mirrors the
// kernel's routes, links and neighbours, adds the configuration's static routes and tunnels, and answers the workers'
// wishes for link addresses.
//
//	m, err := routes.New(engine, routes.Options{Ports: ports, OnLinks: applyLinks, OnSteer: steer})
//	engine.Apply(spec(cfg, m.Links()))   // gives tunnels and accounts their numbers
//	m.Apply(cfg)
//	go m.Run(ctx)
//	<-m.Ready()                          // the kernel's tables are mirrored: attach the ports
//
// The way of a change, which is also the order of the files:
//
//	socket.go     one netlink socket for all groups, so that events of different kinds keep their order
//	message.go    bytes -> route, neighbour, link, address, next hop object
//	mirror.go     what each message changes; dump.go: mark and sweep after an overrun
//	rib.go        prefix -> all its paths -> the best of them
//	via.go        next hops of a path -> one leaf; nexthop.go: next hop objects; group.go: equal-cost groups; slot.go: neighbours
//	settle.go     dirty next hops -> dirty prefixes -> forwarding tables -> tunnels, until nothing is dirty
//	device.go     interfaces and VLANs -> the workers' links
//	configure.go  the file's routes and tunnels
//	learn.go      routes over tunnels' devices -> accounts
//	penalty.go    tunnels that do not carry packets well -> worse routes
//	offline.go    the same tables with nobody in the kernel's place
//	ask.go        wishes and refreshes -> the kernel's neighbour discovery
//
// # Which path wins
//
// Per prefix the lowest source wins, then the lowest priority (the kernel's metric): addresses of this host; neighbours
// on a connected link; tunnels' interface addresses; the configuration and what was learned over tunnels' devices, of equal
// priority the former; the kernel's main table. Paths of the
// configuration with equal priority share the flows by weight. The priority of one into a tunnel is worse by the tunnel's
// penalty (penalty.go). A path whose next hops are all on links that are down
// does not count, as with the kernel's ignore_routes_with_linkdown, so the next one or a shorter prefix takes over.
//
// # Never withdrawing what is there
//
// A dump marks what it saw and what events touched meanwhile. What no dump saw is swept only if nothing of its kind
// changed during the dump, or if two dumps in a row missed it: the kernel's walk over a changing IPv6 table may skip
// routes. Some removals the kernel does not announce (IPv4 routes over a link that went down, of an address or of a
// next hop object that was deleted); their next hops are dead at once by the link's state, and a dump that follows
// sweeps them.
//
// # Limits
//
// One merged table per account: a route of the kernel's local table is preferred over one of the main table for the
// same prefix, but unlike in the kernel not over a longer prefix there. Routes with a TOS, multicast routes, policy
// rules and other tables are left out. Routes with an encapsulation (MPLS, SRv6) lead to the kernel.
package routes
