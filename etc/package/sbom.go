package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"time"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
)

// sbom returns the list of what is in a program (CycloneDX), as JSON.
func (j *job) sbom(binary, arch string) ([]byte, error) {
	modules, err := j.inside(binary)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	own := component("golang", "github.com/txlb/txlb", "v"+j.version, "MIT")
	own.Type = cyclonedx.ComponentTypeApplication
	own.PackageURL += "?goos=linux&goarch=" + arch
	own.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}}

	bom := cyclonedx.NewBOM()
	bom.SerialNumber = fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
	bom.Metadata = &cyclonedx.Metadata{Timestamp: j.when.Format(time.RFC3339), Component: &own}
	var components []cyclonedx.Component
	for _, m := range modules {
		c := component(m.registry, m.path, m.version, m.id)
		if m.sum != "" {
			c.Properties = &[]cyclonedx.Property{{Name: "go.sum", Value: m.sum}}
		}
		components = append(components, c)
	}
	bom.Components = &components
	var out bytes.Buffer
	if err := cyclonedx.NewBOMEncoder(&out, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(bom); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func component(registry, path, version, licence string) cyclonedx.Component {
	purl := "pkg:" + registry + "/" + path + "@" + version
	return cyclonedx.Component{
		BOMRef: purl, PackageURL: purl, Type: cyclonedx.ComponentTypeLibrary, Name: path, Version: version,
		Licenses: &cyclonedx.Licenses{{License: &cyclonedx.License{ID: licence}}},
	}
}
