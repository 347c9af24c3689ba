//go:build ignore

/*
 * The steering program: decides for every frame that arrives at a port whether
 * the worker of its queue gets it, or the kernel.
 *
 * The order of decisions is the order of this file:
 *
 *   1. Ethernet, at most one 802.1Q tag; what is not IP goes to the kernel.
 *   2. Destination is an endpoint: GRE, ESP, ESP in UDP, every fragment and the
 *      answers to probes go to the worker; all else (ping, IKE, BGP, ssh) to the
 *      kernel.
 *   3. Destination is reserved (multicast, link-local, loopback): kernel.
 *   4. Destination is inside a customer prefix: worker.
 *   5. All else: kernel.
 *
 * The program decides only who gets a frame, never whether the frame is right:
 * lengths and checksums are the worker's business, which counts every fault.
 * What is too short to be decided goes to the kernel.
 *
 * There is no license section: none of the three helpers is for GPL programs only.
 */
#include "kernel.h"

/* One class per frame. The first six are the worker's. */
enum steer_class {
	CLASS_GRE,
	CLASS_ESP,
	CLASS_ESP_IN_UDP,
	CLASS_FRAGMENT,
	CLASS_PROBE,
	CLASS_PREFIX,
	CLASS_IKE,
	CLASS_ENDPOINT_OTHER,
	CLASS_OTHER,
	CLASS_NOT_IP,
	CLASS_GROUP_MAC,
	CLASS_MALFORMED,
	/* Not a class of frames: those of the first six that went to the kernel
	 * because their queue had no socket. They are counted twice. */
	CLASS_NO_SOCKET,
	CLASS_COUNT,
};

enum {
	ETHERTYPE_IPV4 = 0x0800,
	ETHERTYPE_VLAN = 0x8100,
	ETHERTYPE_IPV6 = 0x86dd,

	PROTO_HOPOPTS = 0,
	PROTO_ICMP = 1,
	PROTO_UDP = 17,
	PROTO_ROUTING = 43,
	PROTO_FRAGMENT = 44,
	PROTO_GRE = 47,
	PROTO_ESP = 50,
	PROTO_ICMPV6 = 58,
	PROTO_DSTOPTS = 60,

	ICMP_ECHO_REPLY = 0,
	ICMPV6_ECHO_REPLY = 129,

	/* How the payload of a probe begins: pipeline.ProbeMagic. */
	PROBE_MAGIC = 0x63776870,

	PORT_IKE = 500,
	PORT_NAT_T = 4500,

	/* A longer chain is not worth a worker's time: WalkIPv6 has the same limit. */
	MAX_EXTENSION_HEADERS = 8,
};

struct ethernet {
	u8 dst[6];
	u8 src[6];
	u16 type;
};

struct vlan {
	u16 tci;
	u16 type;
};

struct ipv4 {
	u8 version_ihl;
	u8 tos;
	u16 total;
	u16 id;
	u16 fragment;
	u8 ttl;
	u8 proto;
	u16 check;
	u32 src;
	u32 dst;
};

struct ipv6 {
	u8 version_class;
	u8 flow[3];
	u16 payload;
	u8 next;
	u8 hop_limit;
	u32 src[4];
	u32 dst[4];
};

struct extension {
	u8 next;
	u8 len; /* 8-byte units beyond the first 8 bytes */
	u8 rest[6];
};

struct udp {
	u16 src;
	u16 dst;
	u16 len;
	u16 check;
};

struct icmp_echo {
	u8 type;
	u8 code;
	u16 check;
	u16 id;
	u16 seq;
	u32 data;
};

struct prefix4_key {
	u32 bits;
	u32 addr;
};

struct prefix6_key {
	u32 bits;
	u32 addr[4];
};

/* Shared by all ports of the node. Each map has room for twice what a set may
 * hold, because a new set is added before the old one is deleted. */
struct {
	MAP_UINT(type, BPF_MAP_TYPE_HASH);
	MAP_UINT(max_entries, 2 * 4096);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u8);
} endpoints4 SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_HASH);
	MAP_UINT(max_entries, 2 * 4096);
	MAP_TYPE(key, u32[4]);
	MAP_TYPE(value, u8);
} endpoints6 SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_LPM_TRIE);
	MAP_UINT(map_flags, BPF_F_NO_PREALLOC);
	MAP_UINT(max_entries, 2 * 131072);
	MAP_TYPE(key, struct prefix4_key);
	MAP_TYPE(value, u8);
} prefixes4 SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_LPM_TRIE);
	MAP_UINT(map_flags, BPF_F_NO_PREALLOC);
	MAP_UINT(max_entries, 2 * 131072);
	MAP_TYPE(key, struct prefix6_key);
	MAP_TYPE(value, u8);
} prefixes6 SEC(".maps");

/* One of each per port. NewProgram sets the number of sockets. */
struct {
	MAP_UINT(type, BPF_MAP_TYPE_XSKMAP);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u32);
} sockets SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	MAP_UINT(max_entries, CLASS_COUNT);
	MAP_TYPE(key, enum steer_class);
	MAP_TYPE(value, u64);
} counters SEC(".maps");

#define FRAME(ctx) ((const void *)(long)(ctx)->data)
#define FRAME_END(ctx) ((const void *)(long)(ctx)->data_end)

/* The verifier lets a program without CAP_PERFMON read a frame directly only at
 * constant offsets. So the fixed headers are read directly, and what stands at a
 * computed offset is copied by the kernel (Linux 5.18); at counts from the start
 * of the frame. Returns whether the frame has all the bytes. */
#define LOAD(ctx, at, to) (bpf_xdp_load_bytes(ctx, at, to, sizeof(*(to))) == 0)

/* UDP to an endpoint. ESP in UDP is told from IKE by its first four bytes, the
 * SPI, which is never zero (RFC 3948 2.2). The length that decides is UDP's own,
 * because Ethernet pads the one-byte NAT keepalive (RFC 3948 2.3) until it looks
 * like an SPI. The keepalive goes to the IKE daemon, which owns the port. */
INLINE enum steer_class classify_udp(struct xdp_md *ctx, u32 at)
{
	struct udp udp;
	u32 spi;

	if (!LOAD(ctx, at, &udp))
		return CLASS_MALFORMED;
	if (udp.dst == BE16(PORT_IKE))
		return CLASS_IKE;
	if (udp.dst != BE16(PORT_NAT_T))
		return CLASS_ENDPOINT_OTHER;
	if (BE16(udp.len) < sizeof(udp) + sizeof(spi))
		return CLASS_IKE;
	if (!LOAD(ctx, at + sizeof(udp), &spi))
		return CLASS_MALFORMED;
	return spi ? CLASS_ESP_IN_UDP : CLASS_IKE;
}

/* An echo reply to an endpoint may be what has come back of a tunnel's probe.
 * The host's own pings are not. */
INLINE enum steer_class classify_icmp(struct xdp_md *ctx, u32 at, u8 echo_reply)
{
	struct icmp_echo icmp;

	if (!LOAD(ctx, at, &icmp) || icmp.type != echo_reply || icmp.data != BE32(PROBE_MAGIC))
		return CLASS_ENDPOINT_OTHER;
	return CLASS_PROBE;
}

/* The upper layer of an unfragmented packet to an endpoint. A GRE or ESP header
 * that is cut off is still a tunnel's, so the worker counts it. */
INLINE enum steer_class classify_upper(struct xdp_md *ctx, u8 proto, u32 at)
{
	switch (proto) {
	case PROTO_GRE:
		return CLASS_GRE;
	case PROTO_ESP:
		return CLASS_ESP;
	case PROTO_UDP:
		return classify_udp(ctx, at);
	case PROTO_ICMP:
		return classify_icmp(ctx, at, ICMP_ECHO_REPLY);
	case PROTO_ICMPV6:
		return classify_icmp(ctx, at, ICMPV6_ECHO_REPLY);
	default:
		return CLASS_ENDPOINT_OTHER;
	}
}

/* An IPv6 extension chain to an endpoint (RFC 8200 4). Linux sends GRE behind a
 * destination option. What stands behind a fragment header is not read: only
 * the first fragment has it. */
INLINE enum steer_class classify_chain(struct xdp_md *ctx, u8 next, u32 at)
{
	/* One copy of the body, not nine; the verifier follows the loop. */
#pragma clang loop unroll(disable)
	for (int i = 0; i <= MAX_EXTENSION_HEADERS; i++) {
		struct extension ext;

		if (next == PROTO_FRAGMENT)
			return CLASS_FRAGMENT;
		if (next != PROTO_HOPOPTS && next != PROTO_ROUTING && next != PROTO_DSTOPTS)
			return classify_upper(ctx, next, at);
		if (!LOAD(ctx, at, &ext))
			return CLASS_MALFORMED;
		next = ext.next;
		at += (ext.len + 1) * 8;
	}
	return CLASS_MALFORMED;
}

/* Destinations that a customer prefix never takes from the kernel: this network,
 * loopback, link-local, multicast, class E and limited broadcast (RFC 6890). */
INLINE int reserved4(u32 dst)
{
	u32 addr = BE32(dst);
	u32 net = addr >> 24;

	return net == 0 || net == 127 || net >= 224 || addr >> 16 == 0xa9fe;
}

/* The same for IPv6: unspecified, loopback, link-local, multicast. ND lives here. */
INLINE int reserved6(const u32 dst[4])
{
	u32 head = BE32(dst[0]);

	if ((dst[0] | dst[1] | dst[2]) == 0 && BE32(dst[3]) <= 1)
		return 1;
	return head >> 24 == 0xff || head >> 22 == 0xfe80 >> 6;
}

INLINE enum steer_class classify_ipv4(struct xdp_md *ctx, u32 at)
{
	const struct ipv4 *ip = FRAME(ctx) + at;

	if ((const void *)(ip + 1) > FRAME_END(ctx) || ip->version_ihl >> 4 != 4)
		return CLASS_MALFORMED;

	if (bpf_map_lookup_elem(&endpoints4, &ip->dst)) {
		u32 header = (ip->version_ihl & 0xf) * 4;

		/* More fragments, or an offset (RFC 791 3.1). */
		if (ip->fragment & BE16(0x3fff))
			return CLASS_FRAGMENT;
		/* Only UDP is looked into; GRE and ESP with such a header are
		 * faults for the worker to count. */
		if (header < sizeof(*ip) && ip->proto == PROTO_UDP)
			return CLASS_MALFORMED;
		return classify_upper(ctx, ip->proto, at + header);
	}
	if (reserved4(ip->dst))
		return CLASS_OTHER;

	struct prefix4_key key = { .bits = 32, .addr = ip->dst };

	return bpf_map_lookup_elem(&prefixes4, &key) ? CLASS_PREFIX : CLASS_OTHER;
}

INLINE enum steer_class classify_ipv6(struct xdp_md *ctx, u32 at)
{
	const struct ipv6 *ip = FRAME(ctx) + at;

	if ((const void *)(ip + 1) > FRAME_END(ctx) || ip->version_class >> 4 != 6)
		return CLASS_MALFORMED;

	if (bpf_map_lookup_elem(&endpoints6, ip->dst))
		return classify_chain(ctx, ip->next, at + sizeof(*ip));
	if (reserved6(ip->dst))
		return CLASS_OTHER;

	struct prefix6_key key = {
		.bits = 128,
		.addr = { ip->dst[0], ip->dst[1], ip->dst[2], ip->dst[3] },
	};

	return bpf_map_lookup_elem(&prefixes6, &key) ? CLASS_PREFIX : CLASS_OTHER;
}

/* at is a constant in each of the two places this is inlined. */
INLINE enum steer_class classify_l3(struct xdp_md *ctx, u16 type, u32 at)
{
	if (type == BE16(ETHERTYPE_IPV4))
		return classify_ipv4(ctx, at);
	if (type == BE16(ETHERTYPE_IPV6))
		return classify_ipv6(ctx, at);
	return CLASS_NOT_IP;
}

INLINE enum steer_class classify(struct xdp_md *ctx)
{
	const struct ethernet *eth = FRAME(ctx);
	const struct vlan *tag = (const void *)(eth + 1);

	if ((const void *)(eth + 1) > FRAME_END(ctx))
		return CLASS_MALFORMED;
	/* A router does not forward what came by link-layer broadcast or multicast
	 * (RFC 1812 5.3.4); the kernel knows what to do with it. */
	if (eth->dst[0] & 1)
		return CLASS_GROUP_MAC;
	if (eth->type != BE16(ETHERTYPE_VLAN))
		return classify_l3(ctx, eth->type, sizeof(*eth));
	if ((const void *)(tag + 1) > FRAME_END(ctx))
		return CLASS_MALFORMED;
	return classify_l3(ctx, tag->type, sizeof(*eth) + sizeof(*tag));
}

INLINE void count(enum steer_class class)
{
	u64 *packets = bpf_map_lookup_elem(&counters, &class);

	if (packets)
		(*packets)++;
}

SEC("xdp")
int causeway_steer(struct xdp_md *ctx)
{
	enum steer_class class = classify(ctx);

	count(class);
	if (class > CLASS_PREFIX)
		return XDP_PASS;

	/* Never anything but PASS as the fallback: its default, 0, is XDP_ABORTED,
	 * which would cut the host off while no worker listens. */
	int verdict = bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);

	if (verdict != XDP_REDIRECT)
		count(CLASS_NO_SOCKET);
	return verdict;
}
