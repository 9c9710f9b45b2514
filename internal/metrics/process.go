package metrics

import (
	"bytes"
	"cmp"
	"strings"

	"github.com/VictoriaMetrics/metrics"
)

// runtime writes the metrics of the process and of the Go runtime, which the
// library writes without HELP and TYPE.
func runtime(x *text) {
	var b bytes.Buffer
	metrics.WriteProcessMetrics(&b)
	said := map[string]bool{}
	for line := range strings.Lines(b.String()) {
		name, _, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		name, _, _ = strings.Cut(name, "{")
		name, kind := family(name)
		if !said[name] && !strings.HasPrefix(line, "#") {
			said[name] = true
			x.kind(name, kind, cmp.Or(processHelp[name], "Metric of the process"))
		}
		_, _ = x.w.Write([]byte(line))
	}
}

// family returns the name of a metric without the suffix of a sample, and its type.
func family(name string) (string, string) {
	for _, one := range []struct{ name, kind string }{
		{"go_gc_duration_seconds", "summary"}, {"go_gc_pauses_seconds", "histogram"}, {"go_sched_latencies_seconds", "histogram"},
	} {
		if rest, ok := strings.CutPrefix(name, one.name); ok && (rest == "" || rest == "_sum" || rest == "_count" || rest == "_bucket") {
			return one.name, one.kind
		}
	}
	if strings.HasSuffix(name, "_total") {
		return name, "counter"
	}
	return name, "gauge"
}

// processHelp are the HELP lines of the metrics of the library.
var processHelp = map[string]string{
	"go_cgo_calls_count":                            "Calls from Go to C",
	"go_cpu_count":                                  "Processors of the machine",
	"go_gc_cpu_seconds_total":                       "CPU time of the garbage collector",
	"go_gc_duration_seconds":                        "Pauses of the garbage collector",
	"go_gc_forced_count":                            "Garbage collections that the program asked for",
	"go_gc_mark_assist_cpu_seconds_total":           "CPU time of goroutines that helped the garbage collector",
	"go_gc_pauses_seconds":                          "Pauses of the garbage collector",
	"go_gomaxprocs":                                 "Processors that Go uses at once",
	"go_goroutines":                                 "Goroutines",
	"go_info":                                       "Version of Go",
	"go_info_ext":                                   "Compiler, architecture and system",
	"go_memlimit_bytes":                             "Memory limit of the Go runtime",
	"go_memstats_alloc_bytes":                       "Bytes of objects on the heap",
	"go_memstats_alloc_bytes_total":                 "Bytes of objects ever allocated",
	"go_memstats_buck_hash_sys_bytes":               "Memory of the profiler's hash table",
	"go_memstats_frees_total":                       "Objects ever freed",
	"go_memstats_gc_cpu_fraction":                   "Share of CPU time that the garbage collector took",
	"go_memstats_gc_sys_bytes":                      "Memory of the garbage collector",
	"go_memstats_heap_alloc_bytes":                  "Bytes of objects on the heap",
	"go_memstats_heap_idle_bytes":                   "Heap memory that is not used",
	"go_memstats_heap_inuse_bytes":                  "Heap memory that is used",
	"go_memstats_heap_objects":                      "Objects on the heap",
	"go_memstats_heap_released_bytes":               "Heap memory given back to the system",
	"go_memstats_heap_sys_bytes":                    "Heap memory from the system",
	"go_memstats_last_gc_time_seconds":              "Time of the last garbage collection",
	"go_memstats_lookups_total":                     "Pointer lookups",
	"go_memstats_mallocs_total":                     "Objects ever allocated",
	"go_memstats_mcache_inuse_bytes":                "Memory of mcache structures in use",
	"go_memstats_mcache_sys_bytes":                  "Memory of mcache structures from the system",
	"go_memstats_mspan_inuse_bytes":                 "Memory of mspan structures in use",
	"go_memstats_mspan_sys_bytes":                   "Memory of mspan structures from the system",
	"go_memstats_next_gc_bytes":                     "Heap size at which the next garbage collection begins",
	"go_memstats_other_sys_bytes":                   "Other memory of the Go runtime",
	"go_memstats_stack_inuse_bytes":                 "Memory of goroutine stacks in use",
	"go_memstats_stack_sys_bytes":                   "Memory of stacks from the system",
	"go_memstats_sys_bytes":                         "Memory of the Go runtime from the system",
	"go_mutex_wait_seconds_total":                   "Time that goroutines waited for a mutex",
	"go_scavenge_cpu_seconds_total":                 "CPU time spent to give memory back",
	"go_sched_latencies_seconds":                    "Time that goroutines waited to run",
	"go_threads":                                    "Threads",
	"process_cpu_seconds_system_total":              "CPU time in the kernel",
	"process_cpu_seconds_total":                     "CPU time",
	"process_cpu_seconds_user_total":                "CPU time outside the kernel",
	"process_io_read_bytes_total":                   "Bytes read by system calls",
	"process_io_read_syscalls_total":                "System calls that read",
	"process_io_storage_read_bytes_total":           "Bytes read from disks",
	"process_io_storage_written_bytes_total":        "Bytes written to disks",
	"process_io_write_syscalls_total":               "System calls that write",
	"process_io_written_bytes_total":                "Bytes written by system calls",
	"process_major_pagefaults_total":                "Page faults that read from a disk",
	"process_minor_pagefaults_total":                "Page faults that read from no disk",
	"process_num_threads":                           "Threads",
	"process_cgroup_cpu_throttled_seconds_total":    "Time that the CPU limit of the cgroup has taken",
	"process_pressure_cpu_stalled_seconds_total":    "Time that all threads waited for a CPU",
	"process_pressure_cpu_waiting_seconds_total":    "Time that some threads waited for a CPU",
	"process_pressure_io_stalled_seconds_total":     "Time that all threads waited for I/O",
	"process_pressure_io_waiting_seconds_total":     "Time that some threads waited for I/O",
	"process_pressure_memory_stalled_seconds_total": "Time that all threads waited for memory",
	"process_pressure_memory_waiting_seconds_total": "Time that some threads waited for memory",
	"process_resident_memory_anon_bytes":            "Resident memory without files",
	"process_resident_memory_bytes":                 "Resident memory",
	"process_resident_memory_file_bytes":            "Resident memory of files",
	"process_resident_memory_peak_bytes":            "Most resident memory ever",
	"process_resident_memory_shared_bytes":          "Resident memory shared with others",
	"process_start_time_seconds":                    "Start of the process",
	"process_virtual_memory_bytes":                  "Virtual memory",
	"process_virtual_memory_peak_bytes":             "Most virtual memory ever",
}
