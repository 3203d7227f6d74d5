module slipway.test/crds

go 1.24.4

require (
	github.com/prometheus-operator/prometheus-operator v0.85.0
	sigs.k8s.io/gateway-api v1.4.1
	sigs.k8s.io/karpenter v1.6.0
)
