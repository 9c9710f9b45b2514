package status

import (
	"strings"

	"github.com/txlb/txlb/sched"
)

// Counter is one row of a table of counters: everything about one counter, and
// nothing about it anywhere else. Metrics, show stat, JSON, the page and the live
// view are made from the rows. To add a counter, count it (in sched.Host or the
// engine), sum it up there, and add a row here.
type Counter[T any] struct {
	Metric string // Prometheus name
	Help   string // its HELP, a line without a full stop
	Gauge  bool   // it may fall
	Column string // of show stat, as HAProxy names it; "": it has none
	Key    string // in JSON
	Label  string // on the page and over a column
	Short  string // over a column of the live view
	Bytes  bool   // it counts bytes
	Value  func(*T) uint64
	// Labels are further labels of the metric and their values, by turns: rows of one
	// Metric follow each other. Has tells who has the metric; nil: all do.
	Labels []string
	Has    func(*T) bool
}

// Kind is the TYPE of the metric.
func (c *Counter[T]) Kind() string {
	if c.Gauge {
		return "gauge"
	}
	return "counter"
}

// HostCounters are the counters of hosts; those of a group are their sums. The
// order is that of columns.
var HostCounters = []Counter[sched.HostStats]{
	{
		Metric: "txlb_sessions", Gauge: true, Column: "scur", Key: "sessions", Label: "Sessions", Short: "sess",
		Help:  "Open sessions of the host, including those that are connecting",
		Value: func(s *sched.HostStats) uint64 { return uint64(s.Active) },
	},
	{
		Metric: "txlb_sessions_total", Column: "stot", Key: "sessions_total", Label: "Total", Short: "total",
		Help:  "Sessions assigned to the host, including retries",
		Value: func(s *sched.HostStats) uint64 { return s.Picks },
	},
	{
		Metric: "txlb_host_connect_failures_total", Column: "econ", Key: "connect_failures", Label: "Failures", Short: "fail",
		Help:  "Failed connects to the host",
		Value: func(s *sched.HostStats) uint64 { return s.Failures },
	},
	{
		Metric: "txlb_host_early_resets_total", Column: "eresp", Key: "early_resets", Label: "Resets", Short: "reset",
		Help:  "Sessions that the host reset before the first byte of an answer",
		Value: func(s *sched.HostStats) uint64 { return s.EarlyResets },
	},
	{
		Metric: "txlb_bytes_in_total", Column: "bin", Key: "bytes_in", Label: "In", Short: "in", Bytes: true,
		Help:  "Bytes from clients",
		Value: func(s *sched.HostStats) uint64 { return s.In },
	},
	{
		Metric: "txlb_bytes_out_total", Column: "bout", Key: "bytes_out", Label: "Out", Short: "out", Bytes: true,
		Help:  "Bytes to clients",
		Value: func(s *sched.HostStats) uint64 { return s.Out },
	},
}

// ServiceCounters are the counters of services.
var ServiceCounters = []Counter[Service]{
	{
		Metric: "txlb_service_sessions", Gauge: true, Column: "scur", Key: "sessions", Label: "Sessions",
		Help:  "Open sessions of the service",
		Value: func(s *Service) uint64 { return uint64(s.Stats.Active) },
	},
	{
		Metric: "txlb_service_sessions_total", Column: "stot", Key: "sessions_total", Label: "Total",
		Help:  "Clients accepted",
		Value: func(s *Service) uint64 { return s.Stats.Sessions },
	},
	{
		Column: "bin", Key: "bytes_in", Label: "In", Bytes: true,
		Value: func(s *Service) uint64 { return s.Stats.In },
	},
	{
		Column: "bout", Key: "bytes_out", Label: "Out", Bytes: true,
		Value: func(s *Service) uint64 { return s.Stats.Out },
	},
	{
		Key: "sessions_refused", Label: "Rejected",
		Value: func(s *Service) uint64 { return s.Refused },
	},
	{
		Metric: "txlb_redispatches_total", Key: "redispatches", Label: "Redispatches",
		Help:  "Connects to another host after one failed",
		Value: func(s *Service) uint64 { return s.Stats.Redispatches },
	},
	{
		Metric: "txlb_proxy_headers_total", Key: "proxy_headers", Label: "PROXY headers",
		Help:  "Sessions that began with a right PROXY header",
		Value: func(s *Service) uint64 { return s.Stats.ProxyHeaders },
	},
	{
		Metric: "txlb_mptcp_sessions_total", Key: "mptcp_sessions", Label: "MPTCP",
		Help:  "Sessions whose client used Multipath TCP",
		Value: func(s *Service) uint64 { return s.Stats.MPTCP },
	},
	handshakes("client", "full", func(s *Service) uint64 { return s.Stats.TLS.Full }),
	handshakes("client", "resumed", func(s *Service) uint64 { return s.Stats.TLS.Resumed }),
	handshakes("client", "failed", func(s *Service) (n uint64) {
		for reason, clients := range s.Stats.Refused {
			if strings.HasPrefix(reason, "tls_") {
				n += clients
			}
		}
		return n
	}),
	handshakes("host", "full", func(s *Service) uint64 { return s.Stats.TLS.HostFull }),
	handshakes("host", "resumed", func(s *Service) uint64 { return s.Stats.TLS.HostResumed }),
	handshakes("host", "failed", func(s *Service) uint64 { return s.Stats.ConnectFailures["tls"] }),
}

// handshakes makes a row of the TLS handshakes with clients or hosts.
func handshakes(side, result string, value func(*Service) uint64) Counter[Service] {
	return Counter[Service]{
		Metric: "txlb_tls_handshakes_total", Labels: []string{"side", side, "result", result},
		Key: "tls_" + side + "_" + result, Label: "TLS " + side + " " + result,
		Help:  "TLS handshakes with clients and with hosts; failed ones with clients are rejected clients, and those with hosts failed connects",
		Has:   func(s *Service) bool { return s.Encrypts[side] },
		Value: value,
	}
}
