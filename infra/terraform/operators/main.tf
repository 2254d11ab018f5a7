# What runs jobs in a cluster, by Helm: a module of its own, because it needs a cluster that is there.
#
#   terraform init
#   terraform apply -var-file charts.tfvars          (KUBE_CONFIG_PATH names the kubeconfig)
#
# charts.tfvars says which, with repository and version as each project's installation page names them today:
#
#   charts = {
#     jobset           = { repository = "oci://…", chart = "jobset", version = "…", namespace = "jobset-system" }
#     kubeflow-trainer = { repository = "oci://…", chart = "kubeflow-trainer", version = "…", namespace = "kubeflow-system" }
#     kueue            = { repository = "oci://…", chart = "kueue", version = "…", namespace = "kueue-system" }
#     nvidia           = { repository = "https://…", chart = "nvidia-device-plugin", version = "…", namespace = "kube-system" }
#   }
#
# The training operator 1.9 has no chart of its own: kubectl apply -k, as its installation page has it.
terraform {
  required_version = ">= 1.6"
  required_providers {
    helm = {
      source  = "hashicorp/helm"
      version = ">= 2.17"
    }
  }
}

variable "charts" {
  description = "Release name to its chart."
  type = map(object({
    repository = string
    chart      = string
    version    = string
    namespace  = string
    values     = optional(map(string), {})
  }))
}

resource "helm_release" "operator" {
  for_each = var.charts

  name             = each.key
  repository       = each.value.repository
  chart            = each.value.chart
  version          = each.value.version
  namespace        = each.value.namespace
  create_namespace = true
  values           = [yamlencode(each.value.values)]
}
