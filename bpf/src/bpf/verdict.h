/* SPDX-License-Identifier: (GPL-2.0 OR BSD-3-Clause) */
/*
 * Whose packet it is and where it goes, and the counter that says so.
 */
#ifndef BRAID_VERDICT_H
#define BRAID_VERDICT_H

#include "parse.h"

/* The dataplane beats every few milliseconds while it lives, so one second is
 * a hundred beats missed: no scheduling delay looks like that. It is also how
 * long peers of a dead dataplane are left without an answer. */
#define HEARTBEAT_FRESH_NS 1000000000LL

static __always_inline void count(enum steer_counter reason)
{
	__u32 index = reason;
	__u64 *value = bpf_map_lookup_elem(&counters, &index);

	/* Per CPU, and XDP programs do not preempt one another. */
	if (value)
		(*value)++;
}

static __always_inline int pass(struct xdp_md *ctx, enum steer_counter reason)
{
	/* Headers are read from the linear part. A driver that puts less than
	 * the headers there cannot be served: say so apart, once. */
	if (reason == SteerPassTruncated &&
	    bpf_xdp_get_buff_len(ctx) > (__u64)(ctx->data_end - ctx->data))
		reason = SteerPassHeadersInFrags;
	count(reason);
	return XDP_PASS;
}

static __always_inline bool heartbeat_is_fresh(struct memory *known)
{
	__u32 index = 0;
	__u64 *slot = bpf_map_lookup_elem(&heartbeat, &index);
	__u64 beat_ns, jiffies;

	if (!slot)
		return false;
	beat_ns = *(volatile __u64 *)slot;
	if (beat_ns == 0)
		return false;

	/* Reading a clock costs as much as the hash lookup, jiffies are one
	 * load: so one clock reading per CPU and tick. */
	jiffies = bpf_jiffies64();
	if (known->beat_ns == beat_ns && known->jiffies == jiffies)
		return true;
	/* The coarse clock lags by up to a tick, so the beat may lie ahead of
	 * it: signed. */
	if ((__s64)(bpf_ktime_get_coarse_ns() - beat_ns) >= HEARTBEAT_FRESH_NS)
		return false;
	known->beat_ns = beat_ns;
	known->jiffies = jiffies;
	return true;
}

/* The packets of a port mostly match the same kind of claim, and a look-up in
 * the hash table is most of what a packet costs: so the kind that matched last
 * comes first. A wrong guess costs a look-up, never the claim. */
static __always_inline bool is_claimed(struct claim_key *key, struct memory *known)
{
	__be16 *guess = &known->wildcards[bpf_ntohs(key->port) & (WILDCARDS_REMEMBERED - 1)];
	struct claim_key any = { .port = key->port, .family = key->family };

	if (*guess == key->port && bpf_map_lookup_elem(&claims, &any))
		return true;
	if (bpf_map_lookup_elem(&claims, key))
		return true;
	if (!bpf_map_lookup_elem(&claims, &any))
		return false;
	*guess = key->port;
	return true;
}

/* A packet of ours. While the dataplane lives, the kernel must not see it: it
 * has no such socket and would reset the connection. */
static __always_inline int
deliver(struct xdp_md *ctx, struct memory *known, enum steer_counter redirected,
	bool first_fragment)
{
	int verdict;

	if (!heartbeat_is_fresh(known))
		return pass(ctx, SteerPassHeartbeatStale);
	if (first_fragment) {
		/* The kernel would reassemble and then reset. */
		count(SteerDropFirstFragment);
		return XDP_DROP;
	}
	/* The low bits of the flags are the verdict of an empty slot. */
	verdict = bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_DROP);
	count(verdict == XDP_REDIRECT ? redirected : SteerDropNoSocket);
	return verdict;
}

#endif
