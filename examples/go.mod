// Programs to copy from. They are a module of their own, so that txlb does not depend on
// what they use. In your module, leave out the replace.
module github.com/txlb/txlb/examples

go 1.26.0

require (
	github.com/jackc/pgx/v5 v5.12.0
	github.com/txlb/txlb v0.5.0
)

require (
	github.com/VictoriaMetrics/metrics v1.45.0 // indirect
	github.com/beevik/etree v1.8.1 // indirect
	github.com/gaissmai/bart v0.30.0 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	github.com/panjf2000/gnet/v2 v2.10.0 // indirect
	github.com/valyala/fastrand v1.1.0 // indirect
	github.com/valyala/histogram v1.2.0 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)

replace github.com/txlb/txlb => ../
