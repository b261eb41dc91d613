/* SPDX-License-Identifier: (GPL-2.0 OR BSD-3-Clause) */
/*
 * Parsers of the transport layer: the local port of a TCP segment, and of the
 * segment that an ICMP error quotes.
 */
#ifndef BRAID_TRANSPORT_H
#define BRAID_TRANSPORT_H

#include <linux/tcp.h>

#include "parse.h"

#define TCP_HEADER_WORDS_MIN 5 /* RFC 9293 §3.1 */

/* The same first eight bytes in ICMP and ICMPv6 errors. */
struct icmp_error {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 rest;
};

struct tcp_ports {
	__be16 source;
	__be16 destination;
};

/* A first fragment may end inside the TCP header: its ports are enough, for
 * it is never redirected. */
static __always_inline enum steer_counter
parse_tcp(struct cursor *c, struct flow *flow)
{
	struct tcp_ports *ports = c->pos;
	struct tcphdr *tcp = c->pos;
	__u32 header_bytes;

	if ((void *)(ports + 1) > c->end)
		return SteerPassTruncated;
	if (flow->transport_bytes < sizeof(*ports))
		return SteerPassMalformed;
	flow->local.port = ports->destination;
	if (flow->first_fragment)
		return PARSED;

	if ((void *)(tcp + 1) > c->end)
		return SteerPassTruncated;
	header_bytes = tcp->doff * 4;
	if (header_bytes < sizeof(*tcp) || flow->transport_bytes < header_bytes)
		return SteerPassMalformed;
	if (c->pos + header_bytes > c->end)
		return SteerPassTruncated;
	return PARSED;
}

/* RFC 792; Source Quench is deprecated (RFC 6633), Redirect is the kernel's. */
static __always_inline bool is_icmp4_error(__u8 type)
{
	return type == 3 /* Destination Unreachable */ ||
	       type == 11 /* Time Exceeded */ ||
	       type == 12 /* Parameter Problem */;
}

/* RFC 4443 §2.1: Destination Unreachable, Packet Too Big, Time Exceeded,
 * Parameter Problem. Other types below 128 are unassigned. */
static __always_inline bool is_icmp6_error(__u8 type)
{
	return type >= 1 && type <= 4;
}

/* Replaces `flow` by the flow of the quoted packet. */
static __always_inline enum steer_counter
parse_icmp_error(struct cursor *c, struct flow *flow)
{
	bool ipv4 = flow->local.family == CLAIM_FAMILY_IPV4;
	struct icmp_error *icmp = c->pos;
	enum steer_counter reason;
	struct tcp_ports *ports;

	/* Nobody fragments an ICMP error of at most 576 or 1280 bytes. */
	if (flow->first_fragment)
		return SteerPassIcmpOther;
	if ((void *)(icmp + 1) > c->end)
		return SteerPassTruncated;
	if (!(ipv4 ? is_icmp4_error(icmp->type) : is_icmp6_error(icmp->type)))
		return SteerPassIcmpOther;
	c->pos = icmp + 1;

	/* We sent the quoted packet, so its source is ours; and it has no
	 * extension headers, for we never send any. */
	reason = ipv4 ? parse_ipv4(c, flow, LOCAL_IS_SOURCE) :
			parse_ipv6(c, flow, LOCAL_IS_SOURCE);
	/* A quoted fragment other than the first has no ports. */
	if (reason == SteerPassNonFirstFragment)
		return SteerPassIcmpOther;
	if (reason != PARSED)
		return reason;
	if (flow->protocol != IPPROTO_TCP)
		return SteerPassIcmpOther;
	/* RFC 792 promises 8 bytes of it: ports and sequence number. */
	ports = c->pos;
	if (c->pos + 8 > c->end)
		return SteerPassTruncated;
	flow->local.port = ports->source;
	flow->first_fragment = false;
	return PARSED;
}

#endif
