//go:build ignore

// The sink's program: counts the frames that are for this host and drops them or hands them to the AF_XDP socket of
// their queue. What keeps the link alive goes to the kernel: frames to a group address, all that is not IP, and IPv6
// neighbour discovery, so that a sender can resolve the sink's address.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_QUEUES 256
#define ND_FIRST 133 // ICMPv6 router solicitation ... redirect, RFC 4861 section 4
#define ND_LAST 137

struct count {
	__u64 packets;
	__u64 bytes;	// of whole frames, without FCS
	__u64 first_ns; // CLOCK_MONOTONIC of the first and of the last frame
	__u64 last_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct count);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, MAX_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

const volatile __u32 to_socket; // 0: count and drop

static __always_inline int is_discovery(struct ipv6hdr *ip, void *end)
{
	__u8 *type = (void *)(ip + 1);

	if ((void *)(type + 1) > end)
		return 0;
	return ip->nexthdr == IPPROTO_ICMPV6 && *type >= ND_FIRST && *type <= ND_LAST;
}

static __always_inline int is_for_kernel(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	void *l3 = eth + 1;

	if (l3 + 4 > end || (eth->h_dest[0] & 1))
		return 1;
	__u16 type = eth->h_proto;
	if (type == bpf_htons(ETH_P_8021Q)) {
		type = *(__u16 *)(l3 + 2);
		l3 += 4;
	}
	if (type == bpf_htons(ETH_P_IP))
		return 0;
	return type != bpf_htons(ETH_P_IPV6) || is_discovery(l3, end);
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct count *c = bpf_map_lookup_elem(&counts, &zero);

	if (!c || is_for_kernel(ctx))
		return XDP_PASS;
	c->last_ns = bpf_ktime_get_ns();
	if (!c->packets)
		c->first_ns = c->last_ns;
	c->packets++;
	c->bytes += ctx->data_end - ctx->data;
	return to_socket ? bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP) : XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
