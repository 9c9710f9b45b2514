package metrics

import (
	"bytes"
	"os"
	"strconv"
)

// listenOverflows returns how many connections were dropped because an accept queue
// was full, in the whole network namespace since it exists (ListenOverflows in
// /proc/net/netstat, which is not there under ProcSubset=pid of systemd).
func listenOverflows() (uint64, bool) {
	data, err := os.ReadFile("/proc/self/net/netstat")
	if err != nil {
		return 0, false
	}
	return parseOverflows(data)
}

func parseOverflows(netstat []byte) (uint64, bool) {
	lines := bytes.Split(netstat, []byte("\n"))
	for i := 0; i+1 < len(lines); i += 2 { // names, then numbers
		names, numbers := bytes.Fields(lines[i]), bytes.Fields(lines[i+1])
		for j, name := range names {
			if string(name) == "ListenOverflows" && j < len(numbers) {
				n, err := strconv.ParseUint(string(numbers[j]), 10, 64)
				return n, err == nil
			}
		}
	}
	return 0, false
}
