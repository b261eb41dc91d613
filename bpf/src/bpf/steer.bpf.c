// SPDX-License-Identifier: (GPL-2.0 OR BSD-3-Clause)
/*
 * steer: gives braid its packets and the kernel everything else.
 *
 * A TCP segment whose destination, or an ICMP error whose quoted segment's
 * source, is claimed (an address and port, or a port of every address) goes to
 * the AF_XDP socket of the queue that it arrived on. All else passes.
 *
 * One instance per interface; see maps.h for what they share.
 */
#include "counters.h"
#include "maps.h"
#include "parse.h"
#include "transport.h"
#include "verdict.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("xdp.frags")
int steer(struct xdp_md *ctx)
{
	struct cursor c = {
		.pos = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	struct flow flow = {};
	enum steer_counter reason, redirected;
	struct memory *known;
	__u32 index = 0;
	__be16 ether_type;
	bool group, ipv4;

	reason = parse_ethernet(&c, &ether_type, &group);
	if (reason != PARSED)
		return pass(ctx, reason);
	ipv4 = ether_type == bpf_htons(ETH_P_IP);
	if (!ipv4 && ether_type != bpf_htons(ETH_P_IPV6))
		return pass(ctx, SteerPassNotIp);
	/* TCP is never broadcast or multicast (RFC 9293 §3.9.2.3): neighbour
	 * discovery, mDNS and the like leave here. */
	if (group)
		return pass(ctx, SteerPassGroupMac);

	reason = ipv4 ? parse_ipv4(&c, &flow, LOCAL_IS_DESTINATION) :
			parse_ipv6(&c, &flow, LOCAL_IS_DESTINATION);
	if (reason == PARSED && !ipv4)
		reason = skip_ext_headers(&c, &flow);
	if (reason != PARSED)
		return pass(ctx, reason);

	if (flow.protocol == IPPROTO_TCP) {
		reason = parse_tcp(&c, &flow);
		redirected = ipv4 ? SteerRedirectTcp4 : SteerRedirectTcp6;
	} else if (flow.protocol == (ipv4 ? IPPROTO_ICMP : IPPROTO_ICMPV6)) {
		reason = parse_icmp_error(&c, &flow);
		redirected = ipv4 ? SteerRedirectIcmp4 : SteerRedirectIcmp6;
	} else {
		return pass(ctx, SteerPassNotTcp);
	}
	if (reason != PARSED)
		return pass(ctx, reason);

	/* An array has all its elements; the verifier does not know. */
	known = bpf_map_lookup_elem(&memory, &index);
	if (!known || !is_claimed(&flow.local, known))
		return pass(ctx, SteerPassNoClaim);
	return deliver(ctx, known, redirected, flow.first_fragment);
}
