package admin

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/sched"
)

// Counters are what a host counts, each under the key that it has in JSON. There
// is one for each row of status.HostCounters.
type Counters map[string]uint64

func counters(stats *sched.HostStats) Counters {
	c := make(Counters, len(status.HostCounters))
	for i := range status.HostCounters {
		c[status.HostCounters[i].Key] = status.HostCounters[i].Value(stats)
	}
	return c
}

// MarshalJSON writes the counters beside the other fields.
func (i HostInfo) MarshalJSON() ([]byte, error) {
	type plain HostInfo
	data, err := json.Marshal(plain(i))
	if err != nil {
		return nil, err
	}
	data = data[:len(data)-1]
	for n := range status.HostCounters {
		key := status.HostCounters[n].Key
		data = fmt.Appendf(data, `,"%s":%d`, key, i.Counters[key])
	}
	return append(data, '}'), nil
}

// UnmarshalJSON is the inverse of MarshalJSON. A counter that is not there is 0.
func (i *HostInfo) UnmarshalJSON(data []byte) error {
	type plain HostInfo
	if err := json.Unmarshal(data, (*plain)(i)); err != nil {
		return err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	i.Counters = make(Counters, len(status.HostCounters))
	for n := range status.HostCounters {
		key := status.HostCounters[n].Key
		if text, ok := all[key]; ok {
			v, err := strconv.ParseUint(string(text), 10, 64)
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			i.Counters[key] = v
		}
	}
	return nil
}
