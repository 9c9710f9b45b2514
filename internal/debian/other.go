//go:build !unix

package debian
