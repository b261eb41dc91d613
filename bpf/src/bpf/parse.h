/* SPDX-License-Identifier: (GPL-2.0 OR BSD-3-Clause) */
/*
 * Parsers of the link and network layers. Each takes a cursor at the first
 * byte of its header, leaves it at the first byte after it, and returns PARSED
 * or the counter that says why the packet cannot be classified. They check
 * what is needed to classify and no more: checksums, and whether the frame is
 * as long as its IP header says, are the receiver's business.
 */
#ifndef BRAID_PARSE_H
#define BRAID_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>

#include "maps.h"

/* 802.1Q inside 802.1ad is what QinQ means; nothing of ours nests deeper. */
#define VLAN_DEPTH_MAX 2

/* RFC 8200 §4.1: each extension header at most once, Destination Options
 * twice: Hop-by-Hop, Destination, Routing, Fragment, Destination; and one to
 * spare. */
#define EXT_HEADERS_MAX 6

#define IPV4_MORE_FRAGMENTS 0x2000 /* RFC 791 §3.1 */
#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV6_MORE_FRAGMENTS 0x0001 /* RFC 8200 §4.5 */
#define IPV6_FRAGMENT_OFFSET 0xfff8

/* Not in every release of the kernel's user headers. */
struct vlan_tag {
	__be16 tci;
	__be16 ether_type;
};

struct fragment_header {
	__u8 next_header;
	__u8 reserved;
	__be16 offset_flags;
	__be32 identification;
};

/* Hop-by-Hop, Destination Options, Routing: the same first four bytes. */
struct ext_header {
	__u8 next_header;
	__u8 length; /* in units of 8 bytes, without the first 8 */
	__u8 routing_type;
	__u8 segments_left;
};

struct cursor {
	void *pos;
	void *end;
};

/* Which address of the header is ours: of a received packet its destination,
 * of the packet that an ICMP error quotes its source. */
enum local_side { LOCAL_IS_DESTINATION, LOCAL_IS_SOURCE };

/* What the network layer says about the transport layer. */
struct flow {
	struct claim_key local;
	__u32 transport_bytes; /* what the IP header leaves for the transport */
	__u8 protocol;
	bool first_fragment; /* of several */
};

static __always_inline enum steer_counter
parse_ethernet(struct cursor *c, __be16 *ether_type, bool *group)
{
	struct ethhdr *eth = c->pos;

	if ((void *)(eth + 1) > c->end)
		return SteerPassTruncated;
	*ether_type = eth->h_proto;
	*group = eth->h_dest[0] & 1;
	c->pos = eth + 1;

#pragma unroll
	for (int depth = 0; depth <= VLAN_DEPTH_MAX; depth++) {
		struct vlan_tag *tag = c->pos;

		if (*ether_type != bpf_htons(ETH_P_8021Q) &&
		    *ether_type != bpf_htons(ETH_P_8021AD) &&
		    *ether_type != bpf_htons(ETH_P_QINQ1)) /* before 802.1ad */
			return PARSED;
		if (depth == VLAN_DEPTH_MAX)
			break;
		if ((void *)(tag + 1) > c->end)
			return SteerPassTruncated;
		*ether_type = tag->ether_type;
		c->pos = tag + 1;
	}
	return SteerPassVlanDepth;
}

static __always_inline enum steer_counter
parse_ipv4(struct cursor *c, struct flow *flow, enum local_side side)
{
	struct iphdr *ip = c->pos;
	__u32 header_bytes, total_bytes, fragment;
	__be32 address;

	if ((void *)(ip + 1) > c->end)
		return SteerPassTruncated;
	header_bytes = ip->ihl * 4;
	total_bytes = bpf_ntohs(ip->tot_len);
	/* A total length of 0 (BIG TCP, more than 64 KiB) counts as malformed
	 * too: no port of ours takes such a frame. */
	if (ip->version != 4 || header_bytes < sizeof(*ip) || total_bytes < header_bytes)
		return SteerPassMalformed;
	fragment = bpf_ntohs(ip->frag_off);
	if (fragment & IPV4_FRAGMENT_OFFSET)
		return SteerPassNonFirstFragment;

	address = side == LOCAL_IS_DESTINATION ? ip->daddr : ip->saddr;
	flow->local.family = CLAIM_FAMILY_IPV4;
	flow->local.address[10] = 0xff;
	flow->local.address[11] = 0xff;
	__builtin_memcpy(&flow->local.address[12], &address, sizeof(address));
	flow->protocol = ip->protocol;
	flow->transport_bytes = total_bytes - header_bytes;
	flow->first_fragment = fragment & IPV4_MORE_FRAGMENTS;
	c->pos += header_bytes;
	return PARSED;
}

/* The fixed header; `protocol` may be an extension header. */
static __always_inline enum steer_counter
parse_ipv6(struct cursor *c, struct flow *flow, enum local_side side)
{
	struct ipv6hdr *ip = c->pos;

	if ((void *)(ip + 1) > c->end)
		return SteerPassTruncated;
	if (ip->version != 6)
		return SteerPassMalformed;
	flow->local.family = CLAIM_FAMILY_IPV6;
	if (side == LOCAL_IS_DESTINATION)
		__builtin_memcpy(flow->local.address, &ip->daddr, 16);
	else
		__builtin_memcpy(flow->local.address, &ip->saddr, 16);
	flow->protocol = ip->nexthdr;
	flow->transport_bytes = bpf_ntohs(ip->payload_len);
	flow->first_fragment = false;
	c->pos = ip + 1;
	return PARSED;
}

/* Steps over the extension headers that a TCP segment may have in front. */
static __always_inline enum steer_counter
skip_ext_headers(struct cursor *c, struct flow *flow)
{
	for (int i = 0; i <= EXT_HEADERS_MAX; i++) {
		struct ext_header *ext = c->pos;
		__u32 ext_bytes = sizeof(struct fragment_header);
		__u8 type = flow->protocol;

		if (type != IPPROTO_HOPOPTS && type != IPPROTO_DSTOPTS &&
		    type != IPPROTO_ROUTING && type != IPPROTO_FRAGMENT)
			return PARSED;
		if (c->pos + sizeof(struct fragment_header) > c->end)
			return SteerPassTruncated;
		if (type == IPPROTO_FRAGMENT) {
			struct fragment_header *frag = c->pos;
			__u16 fragment = bpf_ntohs(frag->offset_flags);

			if (fragment & IPV6_FRAGMENT_OFFSET)
				return SteerPassNonFirstFragment;
			/* Neither offset nor more: an atomic fragment is a whole
			 * packet (RFC 6946 §4). */
			if (fragment & IPV6_MORE_FRAGMENTS)
				flow->first_fragment = true;
		} else {
			ext_bytes += ext->length * 8;
			/* Not the last hop: the address is not the packet's
			 * destination (RFC 8200 §4.4). */
			if (type == IPPROTO_ROUTING && ext->segments_left)
				return SteerPassRoutingHeader;
		}
		if (ext_bytes > flow->transport_bytes)
			return SteerPassMalformed;
		flow->transport_bytes -= ext_bytes;
		flow->protocol = ext->next_header;
		c->pos += ext_bytes;
	}
	return SteerPassExtHeaderLimit;
}

#endif
