//go:build ignore

// The generator inside the kernel: BPF_PROG_RUN with live frames calls emit once per frame of its page pool, and what
// emit redirects leaves through the interface as if it had been received and forwarded.
//
// A frame's page comes back after use with whatever its last user left in it, so emit writes all headers each time.
// A frame that is not due yet (pacing) or no longer wanted (stop, count reached) is dropped: that costs some tens of
// nanoseconds and keeps interrupts enabled between batches, which spinning inside the program would not.
//
// All checksum arithmetic is on big-endian 16-bit words held in host integers.

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define MAX_SHAPES 3
#define MAX_ORDER 12
#define MAX_HEADER 144 // VLAN tag, IPv6, GRE with a key, IPv6, TCP with a MSS option, probe magic: 138
#define MAX_OFFSET 255	// of any field that is written; only the verifier needs it
#define LOOPBACK 1	// ifindex of lo: the receiving device of every live frame

// One frame size of the mix.
struct shape {
	__u32 frame;   // bytes of the frame, without FCS
	__u32 ip_sum;  // partial sum of the innermost IPv4 header, varying fields as zero
	__u32 l4_sum;  // partial sum of pseudo header, TCP or UDP header and payload, varying fields as zero
	__u32 header;  // bytes of image in use
	__u8 image[MAX_HEADER];
};

// What user space fixed before loading. An offset of 0 says that the frames have no such field.
struct plan {
	__u64 count;	// frames to send; 0 = until stopped
	__u64 interval; // between frames, in 2^-16 ns; 0 = as fast as possible
	__u64 burst;	// how far behind schedule may be caught up, in 2^-16 ns
	__u32 ifindex;	// where the frames leave
	__u32 netns;	// inode number of the network namespace of ifindex
	__u32 flows;
	__u32 flow_ports; // source ports used per source address
	__u32 src;	  // low 32 bits of the first source address, host order
	__u32 sport;	  // first source port, host order
	__u32 src_off;
	__u32 ip_sum_off;
	__u32 sport_off;
	__u32 l4_sum_off;
	__u32 isn_off; // TCP sequence number
	__u32 seq_off; // probe: 48-bit sequence number, then 64-bit time in ns
	__u32 udp;     // 1: a checksum of 0 is sent as 0xffff (RFC 768)
	__u32 order_len;
	__u8 order[MAX_ORDER]; // shape of each frame of one round
	__u32 pad;
	struct shape shapes[MAX_SHAPES];
};

const volatile struct plan given;

// Written by user space while emit runs.
volatile __u32 stop;

// Written by emit, read by user space. One run is active at a time, so plain additions do.
__u64 attempted;
__u64 first_ns; // CLOCK_MONOTONIC of the first and of the last frame
__u64 last_ns;
__u64 sent; // taken by the driver, counted by count_sent

// Private to emit.
__u64 epoch;
__u64 due, earliest;
__u32 flow, flow_port, flow_addr, turn;

static __always_inline int put16(void *data, void *end, __u32 off, __u16 v)
{
	if (off > MAX_OFFSET)
		return -1;
	__u16 *p = data + off;
	if ((void *)(p + 1) > end)
		return -1;
	*p = bpf_htons(v);
	return 0;
}

static __always_inline int put32(void *data, void *end, __u32 off, __u32 v)
{
	return put16(data, end, off, v >> 16) | put16(data, end, off + 2, v);
}

static __always_inline __u32 words32(__u32 v)
{
	return (v >> 16) + (v & 0xffff);
}

static __always_inline __u16 checksum(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

// is_due takes one frame off the schedule if its time has come.
static __always_inline int is_due(__u64 now)
{
	if (!given.interval)
		return 1;
	if (!epoch)
		epoch = now;
	__u64 t = (now - epoch) << 16;
	if (t < due || t < earliest)
		return 0;
	if (t - due > given.burst)
		due = t - given.burst;
	due += given.interval;
	earliest = t + given.interval / 2; // a pause is made up for at twice the rate at most
	return 1;
}

static __always_inline long write_header(struct xdp_md *ctx, const volatile struct shape *s)
{
	__u32 len = s->header;

	if (len == 0 || len > MAX_HEADER)
		return -1;
	return bpf_xdp_store_bytes(ctx, 0, (void *)s->image, len);
}

static __always_inline int write_fields(const volatile struct shape *s, void *data, void *end, __u64 now)
{
	__u64 seq = attempted;
	__u32 src = given.src + flow_addr, sport = given.sport + flow_port;
	__u32 sum = s->l4_sum + words32(src) + sport;
	int bad = put32(data, end, given.src_off, src) | put16(data, end, given.sport_off, sport);

	if (given.ip_sum_off)
		bad |= put16(data, end, given.ip_sum_off, checksum(s->ip_sum + words32(src)));
	if (given.isn_off) {
		bad |= put32(data, end, given.isn_off, seq);
		sum += words32(seq);
	}
	if (given.seq_off) {
		bad |= put16(data, end, given.seq_off, seq >> 32);
		bad |= put32(data, end, given.seq_off + 2, seq);
		bad |= put32(data, end, given.seq_off + 6, now >> 32);
		bad |= put32(data, end, given.seq_off + 10, now);
		sum += (seq >> 32 & 0xffff) + words32(seq) + words32(now >> 32) + words32(now);
	}
	__u16 check = checksum(sum);
	if (given.udp && !check)
		check = 0xffff;
	return bad | put16(data, end, given.l4_sum_off, check);
}

// advance steps to the next flow and the next shape.
static __always_inline void advance(void)
{
	if (++turn >= given.order_len)
		turn = 0;
	if (++flow >= given.flows) {
		flow = flow_port = flow_addr = 0;
		return;
	}
	if (++flow_port >= given.flow_ports) {
		flow_port = 0;
		flow_addr++;
	}
}

SEC("xdp")
int emit(struct xdp_md *ctx)
{
	if (stop || (given.count && attempted >= given.count))
		return XDP_DROP;
	__u64 now = bpf_ktime_get_ns();
	if (!is_due(now))
		return XDP_DROP;

	__u32 at = turn;
	if (at >= MAX_ORDER)
		return XDP_ABORTED;
	__u32 k = given.order[at];
	if (k >= MAX_SHAPES)
		return XDP_ABORTED;
	const volatile struct shape *s = &given.shapes[k];

	int shorter = (int)s->frame - (int)(ctx->data_end - ctx->data);
	if (shorter && bpf_xdp_adjust_tail(ctx, shorter))
		return XDP_ABORTED;
	if (write_header(ctx, s))
		return XDP_ABORTED;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	if (write_fields(s, data, end, now))
		return XDP_ABORTED;

	if (!attempted)
		first_ns = now;
	last_ns = now;
	attempted++;
	advance();
	return bpf_redirect(given.ifindex, 0);
}

// The fields of kernel structures that count_sent reads; their offsets are taken from the running kernel's BTF.
struct ns_common {
	unsigned int inum;
} __attribute__((preserve_access_index));
struct net {
	struct ns_common ns;
} __attribute__((preserve_access_index));
typedef struct {
	struct net *net;
} __attribute__((preserve_access_index)) possible_net_t;
struct net_device {
	int ifindex;
	possible_net_t nd_net;
} __attribute__((preserve_access_index));

// count_sent counts what the driver took. emit cannot know: a redirect is carried out after it returned.
SEC("tp_btf/xdp_devmap_xmit")
int BPF_PROG(count_sent, const struct net_device *from, const struct net_device *to, int taken)
{
	if (from->ifindex == LOOPBACK && to->ifindex == (int)given.ifindex && to->nd_net.net->ns.inum == given.netns)
		__sync_fetch_and_add(&sent, taken);
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
