package main

import (
	"errors"
	"log/slog"
	"os"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/accesslog"
	"github.com/txlb/txlb/internal/logs"
)

// logbook is what a process writes down: its log, and who did what.
type logbook struct {
	log   *slog.Logger
	audit *slog.Logger
	tail  *logs.Tail

	records *engine.Recorder // of sessions, for access
	access  *accesslog.Log

	handler   *logs.Switch
	file      *logs.Writer
	auditFile *logs.Writer
}

// openLogbook opens the files of <logging>. close closes them.
func openLogbook(is config.Logging) (*logbook, error) {
	file, err := logs.Open(is.File)
	if err != nil {
		return nil, err
	}
	b := &logbook{file: file}
	if b.handler, err = logs.NewSwitch(file, is.Level, is.Format); err == nil {
		b.auditFile, err = logs.OpenAudit(is.Audit)
	}
	b.records = engine.NewRecorder()
	if err == nil {
		if b.access, err = accesslog.Open(b.records, is.Access, is.AccessFormat); err != nil {
			_ = b.auditFile.Close()
		}
	}
	if err != nil {
		_ = file.Close() // nothing was written
		return nil, err
	}
	b.tail = logs.NewTail(b.handler)
	b.log, b.audit = slog.New(b.tail), logs.NewAudit(b.auditFile)
	return b, nil
}

// close writes what is left, as far as that takes no longer than a second, and
// closes the files. Nobody is left to tell what was lost.
func (b *logbook) close() {
	_ = b.access.Close()
	_ = b.auditFile.Close()
	_ = b.file.Close()
}

// reopen opens the files again.
func (b *logbook) reopen() error {
	return errors.Join(b.file.Reopen(), b.auditFile.Reopen(), b.access.Reopen())
}

// reopenFor is reopen for a signal. It closes done at its end.
func (b *logbook) reopenFor(s os.Signal, done chan<- struct{}) {
	defer close(done)
	if err := b.reopen(); err != nil {
		b.log.Error("cannot reopen the log, writing to the old file", "err", err)
		return
	}
	b.log.Info("log reopened", "signal", s.String())
}

// auditReload writes down a reload by signal. Others are commands, which the admin
// writes down.
func (b *logbook) auditReload(generation uint64, err error) {
	if err != nil {
		b.audit.Info("command failed", "by", "SIGHUP", "from", "", "via", "signal", "verb", "reload", "err", err)
		return
	}
	b.audit.Info("command", "by", "SIGHUP", "from", "", "via", "signal", "verb", "reload", "generation", generation)
}

// follow makes of <logging> was what it is to be.
func (b *logbook) follow(was, to config.Logging) {
	const failed = "cannot reopen the log, writing to the old file"
	if to.File != was.File {
		if err := b.file.Move(to.File); err != nil {
			b.log.Error(failed, "err", err)
		}
	}
	if to.Audit != was.Audit {
		if err := b.auditFile.Move(to.Audit); err != nil {
			b.log.Error(failed, "err", err)
		}
	}
	if to.Access != was.Access || to.AccessFormat != was.AccessFormat {
		if err := b.access.Change(to.Access, to.AccessFormat); err != nil {
			b.log.Error("cannot change the access log, it stays as it was", "err", err)
		}
	}
	if to.Level != was.Level || to.Format != was.Format {
		if err := b.handler.Set(to.Level, to.Format); err != nil {
			b.log.Error("cannot change the log level or format", "err", err)
		}
	}
}

// stats are what the writers say of themselves.
func (b *logbook) stats() []logs.Stats {
	all := []logs.Stats{b.file.Stats(), b.auditFile.Stats()}
	if access, on := b.access.Stats(); on {
		all = append(all, access)
	}
	return all
}
