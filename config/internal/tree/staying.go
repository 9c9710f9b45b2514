package tree

import "sort"

// Staying returns the elements that are in both lists and need not be moved: a longest
// subsequence that both have in the same order.
func Staying(was, is []*Node) map[Step]bool {
	place := make(map[Step]int, len(was))
	for i, r := range was {
		place[r.Step()] = i
	}
	type link struct{ place, before int }
	var common []link // of is, by their places in was
	var steps []Step
	var ends []int // of the best subsequences of each length, by their index in common
	for _, r := range is {
		p, ok := place[r.Step()]
		if !ok {
			continue
		}
		n := sort.Search(len(ends), func(i int) bool { return common[ends[i]].place >= p })
		l := link{p, -1}
		if n > 0 {
			l.before = ends[n-1]
		}
		common, steps = append(common, l), append(steps, r.Step())
		if n == len(ends) {
			ends = append(ends, 0)
		}
		ends[n] = len(common) - 1
	}
	stays := map[Step]bool{}
	if len(ends) > 0 {
		for i := ends[len(ends)-1]; i >= 0; i = common[i].before {
			stays[steps[i]] = true
		}
	}
	return stays
}
