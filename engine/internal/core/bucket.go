package core

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// bucket is a token bucket that holds the tokens of one second: so many sessions may
// begin at once, and one more each time a token is refilled. It is one number, so all
// loops share it without a lock.
//
// With a rate of r, the tokens of all time lie at the times ceil(k/r) seconds, for every
// whole k. A session takes the next token behind those taken, and behind now; it may
// take tokens of the coming second, which is what a full bucket is. So r tokens are there
// in each second, exactly, however r divides it, and a new rate goes on where the old one was.
type bucket struct {
	taken atomic.Int64 // ns: the token that was taken last
}

const second = int64(time.Second)

// take takes a token, if there is one.
func (b *bucket) take(rate int, now int64) bool {
	for {
		was := b.taken.Load()
		token := tokenAfter(max(was, now), rate)
		if token > now+second {
			return false
		}
		if b.taken.CompareAndSwap(was, token) {
			return true
		}
	}
}

// giveBack gives a token back.
func (b *bucket) giveBack(rate int) {
	for {
		was := b.taken.Load()
		if b.taken.CompareAndSwap(was, tokenBefore(was, rate)) {
			return
		}
	}
}

// used returns how many tokens have not come back yet.
func (b *bucket) used(rate int, now int64) uint64 {
	was := b.taken.Load()
	if was <= now {
		return 0
	}
	return tokensUntil(was, rate) - tokensUntil(now, rate)
}

// spend makes at least so many tokens be used, but not more than all.
func (b *bucket) spend(rate int, tokens, now int64) {
	to := tokenAt(tokensUntil(now, rate)+uint64(min(max(tokens, 0), int64(rate))), rate)
	for {
		was := b.taken.Load()
		if was >= to || b.taken.CompareAndSwap(was, to) {
			return
		}
	}
}

// rescale makes a bucket go on with another rate as full as it is, in tokens: a part of a rate
// that moves to another bucket takes its tokens along, and none that are used up. There is never
// more than before, also of the token that comes next, so up to one is lost. An empty bucket stays
// empty: what was used beyond is forgotten.
func (b *bucket) rescale(from, to int, now int64) {
	for {
		was := b.taken.Load()
		used, part := uint64(0), uint64(0)
		if was > now {
			var n uint64
			n, part = tokensAndPart(now, from)
			used = tokensUntil(was, from) - n
		}
		n, next := tokensAndPart(now, to)
		if next > part { // the next token would come too early
			used++
		}
		is := tokenAt(n+min(used, uint64(to)), to)
		if used == 0 || b.taken.CompareAndSwap(was, is) {
			return
		}
	}
}

// full tells whether all tokens are there: the bucket is then as good as a new one.
func (b *bucket) full(now int64) bool { return b.taken.Load() <= now }

// tokenAfter returns the first token after a time.
func tokenAfter(t int64, rate int) int64 { return tokenAt(tokensUntil(t, rate)+1, rate) }

// tokenBefore returns the last token before one.
func tokenBefore(token int64, rate int) int64 { return tokenAt(tokensUntil(token, rate)-1, rate) }

// tokensUntil returns the number of the last token up to a time.
func tokensUntil(t int64, rate int) uint64 {
	n, _ := tokensAndPart(t, rate)
	return n
}

// tokensAndPart is tokensUntil with the part of the next token that has come by then, in ns of
// a second's tokens.
func tokensAndPart(t int64, rate int) (n, part uint64) {
	high, low := bits.Mul64(uint64(t), uint64(rate))
	return bits.Div64(high, low, uint64(second))
}

// tokenAt returns the time of a token.
func tokenAt(n uint64, rate int) int64 {
	high, low := bits.Mul64(n, uint64(second))
	t, rest := bits.Div64(high, low, uint64(rate))
	if rest > 0 {
		t++
	}
	return int64(t)
}
