/*
 * Included before each file of DPDK's ipsec-secgw: it insists on cards that check IP and UDP checksums, and a capture file
 * is none. It asks for nothing instead; it has no code of its own for what the card does not check.
 */
#include <rte_ethdev.h>
#undef RTE_ETH_RX_OFFLOAD_CHECKSUM
#define RTE_ETH_RX_OFFLOAD_CHECKSUM 0
