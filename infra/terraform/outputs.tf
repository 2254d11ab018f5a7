output "store" {
  description = "What to write before a run's name in manifests and run files."
  value       = "s3://${aws_s3_bucket.store.id}"
}

output "role_arns" {
  description = "Role of each stage."
  value       = { for stage, role in aws_iam_role.stage : stage => role.arn }
}

output "annotate" {
  description = "Commands that give the ServiceAccounts their roles; none with Pod Identity."
  value = var.pod_identity ? [] : [
    for stage, role in aws_iam_role.stage :
    "kubectl -n ${var.namespace} annotate --overwrite serviceaccount nanosft-${stage} eks.amazonaws.com/role-arn=${role.arn}"
  ]
}
